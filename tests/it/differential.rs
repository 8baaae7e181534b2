//! A real Prometheus and slogate get the same series by remote write and the same queries, and
//! have to give the same answers: numbers within 1e-9 of each other, the same labels, the same
//! order where there is one, the same class of error, and from Prometheus 3 the same warnings
//! and infos.
//!
//! Nothing is excused against Prometheus 3, except two things that its notes say: in how many
//! samples a histogram's bucket had to be raised (it doubles that number whenever it joins two
//! notes), and which pairs of a float and a histogram an operator could not combine (it names the
//! last pair of each step, in an order of its own). What Prometheus 2.42
//! does otherwise is listed in `known`, by query, with the reason; an entry that nothing needs
//! fails the test.
//!
//! - `data`: the series. `corpus`: the queries. `generate`: random queries.
//! - `engine`: asking. `answer`: reading and comparing answers.
//!
//! `SLOGATE_DIFFERENTIAL_SEED` and `SLOGATE_DIFFERENTIAL_QUERIES` ask other and more random
//! queries. `SLOGATE_DIFFERENTIAL_TABLE` names a folder for the results as rows of a table.

mod answer;
mod corpus;
mod data;
mod engine;
mod generate;
mod known;

use std::path::Path;

use futures_util::StreamExt as _;

use crate::harness::peers::{self, Peer, Program};
use crate::harness::{Daemon, Setup, block_on, remote_write};

use answer::Strictness;
use corpus::Query;
use data::{BASE_MS, SPAN_MS};
use engine::{Engine, When};
use generate::{Generator, Node};
use known::Changed;

/// Queries under way at a time.
const AT_ONCE: usize = 8;

/// How often a random query is asked before its difference counts.
const ASKED_MAX: usize = 4;

const MINUTE_MS: i64 = 60_000;

/// On no whole second, so that no window's edge and no subquery's step meets a sample.
const INSTANTS: [When; 3] = [
    When::At(BASE_MS + 7 * MINUTE_MS + 123),
    When::At(BASE_MS + 21 * MINUTE_MS + 30_123),
    // After the last sample, within the lookback.
    When::At(BASE_MS + SPAN_MS + 2 * MINUTE_MS + 123),
];

const RANGES: [When; 3] = [
    When::Range {
        start: BASE_MS + 11 * MINUTE_MS + 123,
        end: BASE_MS + 31 * MINUTE_MS,
        step: MINUTE_MS,
    },
    // From before the first sample to after the last.
    When::Range {
        start: BASE_MS - 2 * MINUTE_MS + 123,
        end: BASE_MS + SPAN_MS + 10 * MINUTE_MS,
        step: 137_000,
    },
    When::Range {
        start: BASE_MS + 18 * MINUTE_MS + 123,
        end: BASE_MS + 22 * MINUTE_MS,
        step: 7_000,
    },
];

/// On whole seconds, where the edge of a window counts.
const ON_GRID: [When; 3] = [
    When::At(BASE_MS + 20 * MINUTE_MS),
    When::Range {
        start: BASE_MS + 5 * MINUTE_MS,
        end: BASE_MS + 35 * MINUTE_MS,
        step: 5 * MINUTE_MS,
    },
    When::Range {
        start: BASE_MS + 12 * MINUTE_MS,
        end: BASE_MS + 14 * MINUTE_MS,
        step: 15_000,
    },
];

/// One of `times`, another one for each query.
fn turn(times: &[When], number: usize) -> When {
    times[number % times.len()]
}

/// slogate and a peer with the same series.
struct Pair {
    _daemon: Daemon,
    _peer: Peer,
    ours: Engine,
    theirs: Engine,
    is_3: bool,
}

impl Pair {
    fn start(program: &Program, dir: &Path) -> Pair {
        let is_3 = program.version >= (3, 0);
        let mut series = data::all();
        series.retain(|series| is_3 || !data::is_for_3_only(series));
        let peer = program.start(&dir.join("peer"), "", &[]);
        peer.write(&series);
        let daemon = Setup::in_dir(&dir.join("slogate"))
            .set("STORE_RETENTION", "3650d")
            .start();
        for body in remote_write::requests(&series) {
            let reply = remote_write::post(&daemon.api("/api/v1/write"), body);
            let is_taken = (200..300).contains(&reply.status);
            assert!(is_taken, "{} {}", reply.status, reply.text());
        }
        Pair {
            ours: Engine::at(daemon.api("")),
            theirs: Engine::at(peer.url("")),
            _daemon: daemon,
            _peer: peer,
            is_3,
        }
    }

    /// What is different in the two answers, ours first.
    async fn difference(&self, expr: &str, when: When, is_ordered: bool) -> Option<String> {
        let strictness = Strictness {
            is_ordered,
            // Prometheus 2 answers with a range vector's series in any order.
            has_ordered_series: self.is_3 || !when.is_instant(),
            with_annotations: self.is_3,
        };
        let (ours, theirs) = tokio::join!(self.ours.ask(expr, when), self.theirs.ask(expr, when));
        ours.difference(&theirs, strictness)
    }

    /// What is different in the two answers however often both are asked. Prometheus adds up in
    /// another order each time, and a random query may well ask whether a sum exceeds itself.
    async fn lasting_difference(&self, expr: &str, when: When) -> Option<String> {
        for _ in 1..ASKED_MAX {
            self.difference(expr, when, false).await?;
        }
        self.difference(expr, when, false).await
    }

    /// Asks both; the cases that differ, with what differs.
    fn differences<'q>(&self, cases: &[(&'q Query, When)]) -> Vec<(&'q Query, When, String)> {
        let asked = cases.iter().map(|(query, when)| async move {
            let found = self.difference(&query.expr, *when, query.is_ordered && when.is_instant());
            Some((*query, *when, found.await?))
        });
        let asked = futures_util::stream::iter(asked).buffered(AT_ONCE);
        block_on(asked.filter_map(std::future::ready).collect())
    }
}

/// A row of the table in the docs, also printed.
fn report(name: &str, queries: usize, asked: usize, listed: usize, failed: usize) {
    let agreed = asked - listed - failed;
    let row = format!("| {name} | {queries} | {asked} | {agreed} | {listed} | {failed} |");
    println!("{row}");
    if let Some(folder) = std::env::var_os("SLOGATE_DIFFERENTIAL_TABLE") {
        let file = Path::new(&folder).join(format!("{name}.row"));
        std::fs::write(file, row + "\n").expect("a written row");
    }
}

fn shown(differences: &[(&Query, When, String)]) -> String {
    let line = |(query, when, what): &(&Query, When, String)| {
        format!(
            "{}\n    {when:?}: slogate and the peer: {what}\n",
            query.expr
        )
    };
    differences.iter().take(50).map(line).collect()
}

/// Every kind of query, on a window's edge too.
#[test]
fn prometheus_3_gives_the_same_answers() {
    let Some(program) = peers::prometheus_3() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::start(&program, dir.path());
    let queries = corpus::queries();
    let mut cases = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let whens = [
            turn(&INSTANTS, number),
            turn(&RANGES, number / 3),
            turn(&ON_GRID, number),
        ];
        cases.extend(whens.map(|when| (query, when)));
    }
    let differences = pair.differences(&cases);
    report(
        "Prometheus 3.14",
        queries.len(),
        cases.len(),
        0,
        differences.len(),
    );
    assert!(
        differences.is_empty(),
        "{} of {}:\n{}",
        differences.len(),
        cases.len(),
        shown(&differences)
    );
}

#[test]
fn prometheus_2_gives_the_same_answers_but_for_what_has_changed() {
    let Some(program) = peers::prometheus() else {
        return;
    };
    if program.version >= (3, 0) {
        println!("skipped: the installed Prometheus is no Prometheus 2");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::start(&program, dir.path());
    let queries = corpus::queries();
    let queries: Vec<&Query> = queries.iter().filter(|query| !query.only_3).collect();
    let mut cases = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let whens = [turn(&INSTANTS, number), turn(&RANGES, number / 3)];
        cases.extend(whens.map(|when| (*query, when)));
    }
    let mut differences = pair.differences(&cases);
    let all = differences.len();
    let mut changed = Changed::new();
    differences.retain(|(query, ..)| !changed.excuses(&query.expr));
    let listed = all - differences.len();
    let (major, minor) = program.version;
    report(
        &format!("Prometheus {major}.{minor}"),
        queries.len(),
        cases.len(),
        listed,
        differences.len(),
    );
    assert!(
        differences.is_empty(),
        "{} of {}:\n{}",
        differences.len(),
        cases.len(),
        shown(&differences)
    );
    let unneeded = changed.unneeded();
    assert!(unneeded.is_empty(), "listed for nothing: {unneeded:?}");
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// The smallest query found that still differs, and what differs.
async fn smallest(pair: &Pair, query: &Node, when: When, what: String) -> (String, String) {
    let (mut query, mut what) = (query.clone(), what);
    loop {
        let mut found = None;
        for smaller in query.smaller() {
            if let Some(what) = pair.lasting_difference(&smaller.to_string(), when).await {
                found = Some((smaller, what));
                break;
            }
        }
        match found {
            Some(smaller) => (query, what) = smaller,
            None => return (query.to_string(), what),
        }
    }
}

#[test]
fn random_queries_get_the_answers_of_prometheus_3() {
    let Some(program) = peers::prometheus_3() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::start(&program, dir.path());
    let seed = setting("SLOGATE_DIFFERENTIAL_SEED", 1);
    let count = setting("SLOGATE_DIFFERENTIAL_QUERIES", 1_000) as usize;
    let mut generator = Generator::new(seed);
    let times = [INSTANTS, RANGES, ON_GRID].concat();
    let queries: Vec<(Node, When)> = (0..count)
        .map(|number| (generator.query(), turn(&times, number)))
        .collect();
    let asked = queries.iter().map(|(query, when)| {
        let pair = &pair;
        async move {
            let what = pair.lasting_difference(&query.to_string(), *when).await?;
            let (query, what) = smallest(pair, query, *when, what).await;
            Some(format!(
                "{query}\n    {when:?}: slogate and the peer: {what}\n"
            ))
        }
    });
    let asked = futures_util::stream::iter(asked).buffered(AT_ONCE);
    let differences: Vec<String> = block_on(asked.filter_map(std::future::ready).collect());
    report(
        "Prometheus 3.14, random",
        count,
        count,
        0,
        differences.len(),
    );
    assert!(
        differences.is_empty(),
        "{} of {count} of seed {seed}; the smallest that differ:\n{}",
        differences.len(),
        differences.concat()
    );
}

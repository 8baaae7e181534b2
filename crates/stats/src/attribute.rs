//! Which deployment did it?
//!
//! An SLI has shifted, and several deployments went out around that time. Each is a hypothesis:
//! "requests served by this version *and those that came after it* go wrong more often", since a
//! fault stays in until somebody takes it out, and going back to an older version does. Against
//! them stand "it shifted at some other moment, for all versions alike" and "nothing has shifted".
//!
//! Every hypothesis divides the requests seen into affected and unaffected ones, and its marginal
//! likelihood under Beta priors has a closed form that needs the totals of the two groups only:
//!
//! ```text
//! ln L = ln B(x_u+a, n_u-x_u+b) + ln B(x_a+a, n_a-x_a+b) - 2 ln B(a,b) + ln 2 P(p_a > p_u | data)
//! ```
//!
//! The last term keeps what got *better* from being blamed. Probabilities are prior times
//! likelihood (a Bayesian change-point model with known candidates).
//!
//! **The version contrast decides first.** While two versions run side by side, the older one's
//! requests are unaffected under "this deployment": if it goes wrong as often, that hypothesis
//! explains nothing and "another moment" gains. Once a version has replaced the other, only the
//! time of the shift speaks, and two deployments a minute apart can't be told from each other:
//! then both get a share of the probability.
//!
//! **What it does not say.** It ranks causes of a shift that something else has noticed
//! ([`crate::detect`], a verdict, an alert); it raises no alarm and has no error rate of its own. A
//! rate that drifts through the day looks like a shift at another moment. A fault that a deployment
//! brings but that shows only later looks like one as well. Errors in bursts need the dispersion,
//! or every burst is proof.
//!
//! **No data** leaves the priors as they are. Counts that are none are refused, with their place.

use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::dispersion::Count;
use crate::kernel::BlockError;
use crate::kernel::check_count;
use crate::special::ln_beta;
use crate::special::log_sum_exp;
use statrs::function::erf::erfc;

/// A version's requests, block by block of one common grid of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// How likely its deployment is to bring a fault, beside the others' (a large change more
    /// than a small one); only proportions count. That of the first version, which ran before,
    /// is not used.
    pub prior: f64,
    /// Requests and bad ones in each block; empty blocks where it did not run.
    pub blocks: Vec<Count>,
}

/// What is believed before the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttributeParams {
    /// The probability that nothing has shifted.
    pub unchanged: f64,
    /// The probability that a shift, if there is one, has nothing to do with any deployment.
    pub elsewhere: f64,
    /// How much more counts vary than independent requests would.
    pub dispersion: f64,
}

impl Default for AttributeParams {
    /// Even odds that something shifted; seven shifts in ten come from a change (the share of
    /// outages that Beyer et al., "Site Reliability Engineering", 2016, put on changes);
    /// independent requests.
    fn default() -> Self {
        AttributeParams {
            unchanged: 0.5,
            elsewhere: 0.3,
            dispersion: 1.0,
        }
    }
}

/// The probabilities of all causes, which sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// For every version after the first: that its deployment is the cause.
    pub deployments: Vec<f64>,
    /// That the cause lies elsewhere.
    pub elsewhere: f64,
    /// The block in which a shift from elsewhere would most likely have begun.
    pub elsewhere_began: usize,
    /// That nothing has shifted.
    pub unchanged: f64,
}

impl Attribution {
    /// The version, counted from 0 with the one that ran before, whose deployment is the most
    /// probable cause: more probable than elsewhere and than no shift. `None` where none is.
    pub fn blamed(&self) -> Option<usize> {
        let deployments = self.deployments.iter().enumerate();
        let (at, probability) = deployments.max_by(|a, b| a.1.total_cmp(b.1))?;
        (*probability > self.elsewhere && *probability > self.unchanged).then_some(at + 1)
    }
}

/// Why nothing can be attributed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum AttributeError {
    /// A count is none.
    #[error("version {version}, block {block}: {source}")]
    Count {
        /// The version, from 0.
        version: usize,
        /// The block, from 0.
        block: usize,
        /// What is wrong with the count.
        source: BlockError,
    },
    /// A version has more or fewer blocks than the first.
    #[error("version {version} has {found} blocks: expected {expected}, as the first has")]
    Blocks {
        /// The version, from 0.
        version: usize,
        /// How many blocks it has.
        found: usize,
        /// How many the first has.
        expected: usize,
    },
    /// A parameter is out of its range.
    #[error(transparent)]
    Param(#[from] ParamError),
}

/// Says which deployment a rise of the bad share belongs to. `versions` are in the order of their
/// deployments, the first being what ran before them all; a version that comes back after a
/// rollback keeps its place.
///
/// # Errors
/// Names the count or the parameter that makes no sense.
pub fn attribute(
    versions: &[Version],
    params: &AttributeParams,
) -> Result<Attribution, AttributeError> {
    check(versions, params)?;
    let blocks = versions.first().map_or(0, |first| first.blocks.len());
    let in_block = |at: usize| sum(versions.iter().filter_map(|version| version.blocks.get(at)));
    let of_version = versions.iter().map(|version| sum(version.blocks.iter()));
    let groups = Groups::new(
        sum(versions.iter().flat_map(|v| &v.blocks)),
        params.dispersion,
    );

    // A fault that comes with a version stays in all later ones.
    let totals: Vec<Count> = of_version.collect();
    let by_deployment = groups.affected_from(totals.into_iter());
    let deployments = by_deployment.iter().skip(1);
    let priors: Vec<f64> = versions
        .iter()
        .skip(1)
        .map(|version| version.prior)
        .collect();
    let shares = crate::combine::shares(&priors);

    // A shift from elsewhere begins in any block but the first; before that it is no shift.
    let by_block = groups.affected_from((0..blocks).map(in_block));
    let starts: Vec<f64> = by_block.iter().skip(1).copied().collect();

    let elsewhere = if shares.iter().all(|share| *share == 0.0) {
        1.0
    } else if starts.is_empty() {
        0.0
    } else {
        params.elsewhere
    };
    let shifted = 1.0 - params.unchanged;
    let log_deployments: Vec<f64> = deployments
        .zip(&shares)
        .map(|(log_likelihood, share)| (shifted * (1.0 - elsewhere) * share).ln() + log_likelihood)
        .collect();
    let log_elsewhere = (shifted * elsewhere).ln() - (starts.len().max(1) as f64).ln()
        + if starts.is_empty() {
            0.0
        } else {
            log_sum_exp(starts.iter().copied())
        };
    let log_unchanged = params.unchanged.ln();

    let rest = [log_elsewhere, log_unchanged];
    let log_total = log_sum_exp(log_deployments.iter().copied().chain(rest));
    let probability = |log: f64| (log - log_total).exp();
    let began = (0..starts.len()).max_by(|&i, &j| starts[i].total_cmp(&starts[j]));
    Ok(Attribution {
        deployments: log_deployments
            .iter()
            .map(|log| probability(*log))
            .collect(),
        elsewhere: probability(log_elsewhere),
        elsewhere_began: began.map_or(0, |at| at + 1),
        unchanged: probability(log_unchanged),
    })
}

/// Likelihoods of a division into two groups, against one group.
struct Groups {
    all: Count,
    dispersion: f64,
    prior: (f64, f64),
    log_one_group: f64,
}

impl Groups {
    /// The prior is worth half a bad request at the rate seen, the same for every hypothesis.
    fn new(all: Count, dispersion: f64) -> Groups {
        let all = Count {
            total: all.total / dispersion,
            events: all.events / dispersion,
        };
        let rate = (all.events + 0.5) / (all.total + 1.0);
        let prior = (0.5, 0.5 * (1.0 - rate) / rate);
        let mut groups = Groups {
            all,
            dispersion,
            prior,
            log_one_group: 0.0,
        };
        groups.log_one_group = groups.log_marginal(all);
        groups
    }

    /// For each part: the log-likelihood ratio of "this part and those after it are affected".
    fn affected_from(&self, parts: impl DoubleEndedIterator<Item = Count>) -> Vec<f64> {
        let mut affected = Count::default();
        let mut found: Vec<f64> = parts
            .rev()
            .map(|part| {
                affected.total += part.total / self.dispersion;
                affected.events += part.events / self.dispersion;
                self.log_likelihood(affected)
            })
            .collect();
        found.reverse();
        found
    }

    fn log_likelihood(&self, affected: Count) -> f64 {
        let unaffected = Count {
            total: (self.all.total - affected.total).max(0.0),
            events: (self.all.events - affected.events).max(0.0),
        };
        self.log_marginal(affected) + self.log_marginal(unaffected) - self.log_one_group
            + self.log_rise(affected, unaffected)
    }

    fn log_marginal(&self, count: Count) -> f64 {
        let (a, b) = self.prior;
        ln_beta(a + count.events, b + (count.total - count.events).max(0.0)) - ln_beta(a, b)
    }

    /// `ln 2 P(p_a > p_u | data)`, the rates' logarithms taken as normal.
    fn log_rise(&self, affected: Count, unaffected: Count) -> f64 {
        let (a, b) = self.prior;
        let moments = |count: Count| {
            let (events, total) = (a + count.events, a + b + count.total);
            ((events / total).ln(), 1.0 / events - 1.0 / total)
        };
        let (high, low) = (moments(affected), moments(unaffected));
        let z = (high.0 - low.0) / (high.1 + low.1).max(1e-300).sqrt();
        // 2 Φ(z) = erfc(-z/√2); far below 0 it underflows, which is as certain as need be.
        erfc(-z * std::f64::consts::FRAC_1_SQRT_2).max(1e-300).ln()
    }
}

fn check(versions: &[Version], params: &AttributeParams) -> Result<(), AttributeError> {
    ParamError::check("unchanged", params.unchanged, 0.001, 0.999)?;
    ParamError::check("elsewhere", params.elsewhere, 0.001, 0.999)?;
    ParamError::check("dispersion", params.dispersion, 1.0, DISPERSION_MAX)?;
    let expected = versions.first().map_or(0, |first| first.blocks.len());
    for (version, of) in versions.iter().enumerate() {
        let found = of.blocks.len();
        if found != expected {
            return Err(AttributeError::Blocks {
                version,
                found,
                expected,
            });
        }
        ParamError::check("prior", of.prior, 0.0, 1e9)?;
        for (block, count) in of.blocks.iter().enumerate() {
            let events = check_count("events", count.events);
            let checked = check_count("total", count.total).and(events);
            checked.map_err(|source| AttributeError::Count {
                version,
                block,
                source,
            })?;
        }
    }
    Ok(())
}

fn sum<'c>(counts: impl Iterator<Item = &'c Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        total: sum.total + count.total.max(count.events),
        events: sum.events + count.events,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binomial;
    use proptest::prelude::*;
    use rand::Rng;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Two hours of minutes and six deployments, each of which takes over within `ramp` minutes.
    struct Story {
        starts: Vec<usize>,
        ramp: usize,
        per_minute: u32,
    }

    const MINUTES: usize = 120;

    impl Story {
        fn random(rng: &mut ChaCha8Rng, ramp: usize, per_minute: u32) -> Story {
            let gap = |rng: &mut ChaCha8Rng| 8 + (rng.random::<f64>() * 12.0) as usize;
            let mut starts = vec![10 + gap(rng)];
            while starts.len() < 6 {
                let next = starts[starts.len() - 1] + gap(rng);
                starts.push(next);
            }
            Story {
                starts,
                ramp,
                per_minute,
            }
        }

        /// The share of each version in a minute; the newest takes from all before it.
        fn shares(&self, minute: usize) -> Vec<f64> {
            let mut shares = vec![1.0];
            for start in &self.starts {
                let age = minute as f64 - *start as f64 + 1.0;
                let new = (age / self.ramp.max(1) as f64).clamp(0.0, 1.0);
                shares.iter_mut().for_each(|share| *share *= 1.0 - new);
                shares.push(new);
            }
            shares
        }

        fn play(&self, rng: &mut ChaCha8Rng, rate: impl Fn(usize, usize) -> f64) -> Vec<Version> {
            let mut versions = vec![
                Version {
                    prior: 1.0,
                    blocks: Vec::new()
                };
                self.starts.len() + 1
            ];
            for minute in 0..MINUTES {
                for (v, share) in self.shares(minute).into_iter().enumerate() {
                    let total = (share * f64::from(self.per_minute)).round() as u32;
                    let events = binomial(rng, total, rate(v, minute));
                    versions[v].blocks.push(Count {
                        total: f64::from(total),
                        events,
                    });
                }
            }
            versions
        }
    }

    /// How often the deployment with the fault is ranked first of six, by the seed given.
    fn accuracy(seed: u64, ramp: usize, per_minute: u32, times: f64) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let runs = 200;
        let mut right = 0;
        for _ in 0..runs {
            let story = Story::random(&mut rng, ramp, per_minute);
            let guilty = 1 + (rng.random::<f64>() * 6.0) as usize;
            let bad = |v: usize| if v >= guilty { times } else { 1.0 };
            let versions = story.play(&mut rng, |v, _| 0.002 * bad(v));
            let found = attribute(&versions, &AttributeParams::default()).expect("counts");
            right += u32::from(found.blamed() == Some(guilty));
        }
        f64::from(right) / f64::from(runs)
    }

    /// Deployments every 8 to 20 minutes; the fault triples the errors.
    #[test]
    fn the_guilty_of_six_deployments_is_ranked_first() {
        let sudden = accuracy(61, 1, 600, 3.0);
        let gradual = accuracy(62, 6, 600, 3.0);
        let busy = accuracy(63, 6, 6000, 2.0);
        println!("ranked first: sudden {sudden}, gradual {gradual}, busy {busy}");
        assert!(sudden >= 0.9, "{sudden}");
        assert!(gradual >= 0.9, "{gradual}");
        assert!(busy >= 0.95, "{busy}");
    }

    /// A dependency fails while a rollout is under way: the old version fails as often.
    #[test]
    fn what_hits_the_old_version_too_is_not_the_deployment() {
        let mut rng = ChaCha8Rng::seed_from_u64(64);
        let mut wrong = 0;
        for _ in 0..100 {
            let story = Story::random(&mut rng, 10, 1200);
            let began = story.starts[2] + 3;
            let rate = |_, minute| if minute >= began { 0.008 } else { 0.002 };
            let versions = story.play(&mut rng, rate);
            let found = attribute(&versions, &AttributeParams::default()).expect("counts");
            wrong += u32::from(found.blamed().is_some());
            assert!(found.elsewhere_began.abs_diff(began) <= 4, "{found:?}");
        }
        assert!(wrong <= 5, "{wrong} of 100 blamed");
    }

    #[test]
    fn nothing_shifted_blames_nobody() {
        let mut rng = ChaCha8Rng::seed_from_u64(65);
        let mut blamed = 0;
        for _ in 0..100 {
            let story = Story::random(&mut rng, 5, 600);
            // Errors in bursts of four, known as such; and a third deployment that mends things.
            let mut versions = story.play(&mut rng, |v, _| if v >= 3 { 0.000_4 } else { 0.000_5 });
            for count in versions.iter_mut().flat_map(|version| &mut version.blocks) {
                count.events = (4.0 * count.events).min(count.total);
            }
            let params = AttributeParams {
                dispersion: 4.0,
                ..AttributeParams::default()
            };
            let found = attribute(&versions, &params).expect("counts");
            blamed += u32::from(found.blamed().is_some());
        }
        assert!(blamed <= 2, "{blamed} of 100 blamed");
    }

    /// Errors rise with version 2 and fall when it is rolled back to version 1.
    #[test]
    fn a_rollback_is_proof() {
        let minute = |total: f64, events: f64| Count { total, events };
        let version = |blocks: &[Count]| Version {
            prior: 1.0,
            blocks: blocks.to_vec(),
        };
        let (none, good, bad) = (minute(0.0, 0.0), minute(600.0, 1.0), minute(600.0, 9.0));
        let versions = [
            version(&[good, good, none, none, none, none, none, none]),
            version(&[none, none, good, good, none, none, good, good]),
            version(&[none, none, none, none, bad, bad, none, none]),
        ];
        let found = attribute(&versions, &AttributeParams::default()).expect("counts");
        assert_eq!(found.blamed(), Some(2));
        assert!(found.deployments[1] > 0.99, "{found:?}");
    }

    /// With equal data a deployment of ten times the prior is ten times as likely.
    #[test]
    fn priors_decide_where_data_cannot() {
        let quiet = vec![
            Count {
                total: 100.0,
                events: 1.0
            };
            10
        ];
        let nothing = vec![Count::default(); 10];
        let version = |prior: f64, blocks: &Vec<Count>| Version {
            prior,
            blocks: blocks.clone(),
        };
        let versions = [
            version(1.0, &quiet),
            version(1.0, &nothing),
            version(10.0, &nothing),
        ];
        let found = attribute(&versions, &AttributeParams::default()).expect("counts");
        assert!((found.deployments[1] / found.deployments[0] - 10.0).abs() < 1e-9);
        assert_eq!(found.blamed(), None);
        let found = attribute(&[], &AttributeParams::default()).expect("no data");
        assert!((found.elsewhere - 0.5).abs() < 1e-12 && found.deployments.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_place() {
        let count = Count {
            total: 10.0,
            events: 1.0,
        };
        let version = |blocks: Vec<Count>| Version { prior: 1.0, blocks };
        let uneven = [version(vec![count; 2]), version(vec![count])];
        let error = attribute(&uneven, &AttributeParams::default()).expect_err("uneven");
        assert_eq!(
            error.to_string(),
            "version 1 has 1 blocks: expected 2, as the first has"
        );
        let broken = Count {
            total: f64::NAN,
            events: 1.0,
        };
        let error = attribute(&[version(vec![count, broken])], &AttributeParams::default());
        let error = error.expect_err("not a number").to_string();
        assert!(error.starts_with("version 0, block 1: total"), "{error}");
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one(
            counts in proptest::collection::vec(
                proptest::collection::vec((0.0..1e6_f64, 0.0..1e6_f64), 5), 0..5),
            dispersion in 1.0..50.0_f64,
        ) {
            let version = |blocks: &Vec<(f64, f64)>| Version {
                prior: 1.0,
                blocks: blocks.iter().map(|&(total, events)| Count { total, events }).collect(),
            };
            let versions: Vec<Version> = counts.iter().map(version).collect();
            let params = AttributeParams { dispersion, ..AttributeParams::default() };
            let found = attribute(&versions, &params).expect("counts");
            let all = found.deployments.iter().sum::<f64>() + found.elsewhere + found.unchanged;
            prop_assert!((all - 1.0).abs() < 1e-9, "{found:?}");
        }
    }
}

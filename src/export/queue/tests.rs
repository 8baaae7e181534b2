use proptest::prelude::*;

use super::*;

fn request(at: u32) -> Request {
    Request {
        samples: at,
        oldest_ms: i64::from(at) * 10,
        body: vec![at as u8; 100],
    }
}

fn open(dir: &Path) -> (Queue, Recovered) {
    Queue::open(dir, 1 << 20).unwrap()
}

/// Takes everything out.
fn drain(queue: &mut Queue) -> Vec<u32> {
    let mut found = Vec::new();
    while let Some((position, request)) = queue.peek().unwrap() {
        assert_eq!(request.body, vec![request.samples as u8; 100]);
        assert_eq!(request.oldest_ms, i64::from(request.samples) * 10);
        found.push(request.samples);
        queue.done(position).unwrap();
    }
    found
}

#[test]
fn what_was_not_sent_is_there_after_a_kill_and_what_was_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, recovered) = open(dir.path());
    assert_eq!(recovered.through_ms, None);
    queue.append(&[request(1), request(2)], 100).unwrap();
    queue.append(&[request(3)], 200).unwrap();
    let (position, first) = queue.peek().unwrap().unwrap();
    assert_eq!(first.samples, 1);
    queue.done(position).unwrap();
    // Twice the same answer must not skip a request.
    queue.done(position).unwrap();
    assert_eq!((queue.pending(), queue.oldest_ms()), (5, None));
    drop(queue);

    let (mut queue, recovered) = open(dir.path());
    assert_eq!((recovered.through_ms, recovered.lost_bytes), (Some(200), 0));
    assert_eq!(queue.pending(), 5);
    queue.append(&[request(4)], 300).unwrap();
    assert_eq!(drain(&mut queue), [2, 3, 4]);
    assert_eq!(queue.pending(), 0);
    drop(queue);

    let (mut queue, recovered) = open(dir.path());
    assert_eq!(recovered.through_ms, Some(300));
    assert_eq!(drain(&mut queue), [0; 0]);
    // All that was sent is deleted, and yet the next start knows where to go on.
    assert_eq!(numbers(dir.path()).unwrap().len(), 1);
    drop(queue);
    assert_eq!(open(dir.path()).1.through_ms, Some(300));
}

#[test]
fn when_it_is_full_the_oldest_go_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = Queue::open(dir.path(), 1 << 20).unwrap();
    let large = |samples| Request {
        body: vec![0; 50_000],
        ..request(samples)
    };
    let (in_flight, _) = {
        queue.append(&[large(1)], 0).unwrap();
        queue.peek().unwrap().unwrap()
    };
    let mut dropped = 0;
    for round in 1..100 {
        dropped += queue.append(&[large(1)], round).unwrap();
        assert!(queue.bytes() <= (1 << 20) + 50_100, "{}", queue.bytes());
    }
    assert_eq!(dropped + queue.pending(), 100);
    assert!(queue.pending() >= 15, "{}", queue.pending());
    // The answer to a request whose place is gone changes nothing.
    let before = queue.pending();
    queue.done(in_flight).unwrap();
    assert_eq!(queue.pending(), before);
    let mut left = 0;
    while let Some((position, request)) = queue.peek().unwrap() {
        left += u64::from(request.samples);
        queue.done(position).unwrap();
    }
    assert_eq!((left, queue.pending()), (before, 0));
}

#[test]
fn a_file_of_another_version_is_not_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("queue-1"), b"SLGEXPQ9 and more").unwrap();
    let error = Queue::open(dir.path(), 1 << 20).unwrap_err().to_string();
    assert!(
        error.contains("queue-1") && error.contains("version"),
        "{error}"
    );
    // One that was being made when the process died is nothing.
    fs::write(dir.path().join("queue-1"), b"SLGE").unwrap();
    assert!(Queue::open(dir.path(), 1 << 20).is_ok());
}

proptest! {
    /// Wherever a kill or a torn write ends the file: whole rounds survive, half ones never
    /// happened, and nothing is read that was not written.
    #[test]
    fn a_file_may_end_anywhere(
        rounds in proptest::collection::vec(0..4usize, 1..5),
        cut in any::<prop::sample::Index>(),
        flip in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path());
        let (mut ends, mut next) = (Vec::new(), 1);
        for (round, count) in rounds.iter().enumerate() {
            let requests: Vec<_> = (0..*count).map(|at| request(next + at as u32)).collect();
            next += *count as u32;
            queue.append(&requests, round as i64).unwrap();
            ends.push((queue.last_bytes(), next - 1, round as i64));
        }
        let path = queue.last_path();
        drop(queue);
        let mut bytes = fs::read(&path).unwrap();
        let at = cut.index(bytes.len() - MAGIC.len()) + MAGIC.len();
        match flip {
            true => bytes[at] ^= 0x40,
            false => bytes.truncate(at),
        }
        fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().rev().find(|(end, ..)| *end <= at as u64);
        let (mut queue, recovered) = open(dir.path());
        prop_assert_eq!(recovered.through_ms, whole.map(|(.., round)| *round));
        let last = whole.map_or(0, |(_, last, _)| *last);
        prop_assert_eq!(drain(&mut queue), (1..=last).collect::<Vec<_>>());
        prop_assert_eq!(queue.pending(), 0);
    }
}

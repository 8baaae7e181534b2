//! What is kept between looks changes nothing but what a look costs.

use super::*;
use crate::judge::kept::Kept;

/// Every look gives what judging from scratch at its time gives.
async fn agree(gates: &[Arc<Gate>], shop: &Shop, gaps_ms: &[i64]) {
    let subject = Subject {
        deployment: deployment(Phase::Progressing),
        history: Vec::new(),
    };
    let (mut kept, mut now_ms) = (Kept::default(), T0 - 5_000);
    for gap_ms in gaps_ms {
        now_ms += gap_ms;
        for gate in gates {
            let often = kept.judge(gate, &subject, shop, now_ms).await;
            let once = judge(gate, &subject, shop, now_ms).await;
            assert_eq!(format!("{often:#?}"), format!("{once:#?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn looking_often_says_what_looking_once_says(
        errors in prop_oneof![Just(1.0), 0.5f64..40.0],
        latency in prop_oneof![Just(0.1), 0.09f64..0.3],
        requests in prop_oneof![Just(3.0), Just(500.0)],
        stays in any::<bool>(),
        gaps_ms in prop::collection::vec(2_000i64..240_000, 1..7),
    ) {
        let until_ms = if stays { i64::MAX } else { T0 + 4 * MINUTE };
        let both = shop(&[
            Traffic::of("1", T0 - HOUR).until(until_ms),
            Traffic::of("2", T0).requests(requests).errors(errors.min(requests)).latency(latency),
        ]);
        let gates = [gate(&format!("{ERRORS}{LATENCY}")), {
            let mut other = gate(ERRORS).as_ref().clone();
            other.name = "other".to_owned();
            Arc::new(other)
        }];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agree(&gates, &both, &gaps_ms));
    }
}

#[tokio::test]
async fn a_source_that_fails_takes_nothing_back() {
    let gate = gate(ERRORS);
    let subject = Subject {
        deployment: deployment(Phase::Progressing),
        history: Vec::new(),
    };
    let mut both = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).errors(10.0),
    ]);
    let mut kept = Kept::default();
    let minute = |n: i64| T0 + n * MINUTE;
    kept.judge(&gate, &subject, &both, minute(1)).await;
    let blocks = kept.blocks_count();
    both.broken = true;
    let verdict = kept.judge_anew(&gate, &subject, &both, minute(2)).await;
    assert_eq!(verdict.reason, Reason::SourceError);
    assert_eq!(kept.blocks_count(), blocks);
    both.broken = false;
    let often = kept.judge(&gate, &subject, &both, minute(8)).await;
    assert_eq!(often.verdict, Outcome::Fail, "{}", often.message);
    assert_eq!(often, judge(&gate, &subject, &both, minute(8)).await);
}

use super::*;

#[test]
fn only_amount_and_deflate_on_oom_are_required() {
    let balloon: Balloon =
        serde_json::from_str(r#"{"amount_mib": 64, "deflate_on_oom": true}"#).unwrap();
    let expected = Balloon {
        amount_mib: 64,
        deflate_on_oom: true,
        ..Balloon::default()
    };
    assert_eq!(balloon, expected);
    for json in [
        r#"{"amount_mib": 64}"#,
        r#"{"deflate_on_oom": true}"#,
        r#"{"amount_mib": -1, "deflate_on_oom": true}"#,
        r#"{"amount_mib": 1, "deflate_on_oom": true, "pages": 1}"#,
    ] {
        assert!(serde_json::from_str::<Balloon>(json).is_err(), "{json}");
    }
}

#[test]
fn statistics_that_the_guest_did_not_report_are_absent() {
    let stats = BalloonStats {
        actual_mib: 2,
        oom_kill: Some(3),
        ..BalloonStats::default()
    };
    assert_eq!(
        serde_json::to_string(&stats).unwrap(),
        r#"{"target_pages":0,"actual_pages":0,"target_mib":0,"actual_mib":2,"oom_kill":3}"#
    );
    let status = serde_json::to_string(&HintingStatus::default()).unwrap();
    assert_eq!(status, r#"{"host_cmd":0,"guest_cmd":null}"#);
}

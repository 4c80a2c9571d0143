use super::*;

/// Waits, in seconds, of a guest that lives for each of `lives`, on a clock that its waits move too.
fn waits(lives: &[Duration]) -> Vec<u64> {
    let mut brake = Brake::default();
    let mut now = Duration::from_secs(1_000_000);
    let waits = lives.iter().map(|life| {
        brake.started(now);
        now += *life;
        let wait = brake.rebooted(now);
        now += wait;
        wait.as_secs()
    });
    waits.collect()
}

const QUICK: Duration = Duration::from_millis(1);

#[test]
fn after_five_fast_restarts_each_wait_doubles_up_to_a_minute() {
    let waits = waits(&[QUICK; 14]);
    assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn a_slow_guest_never_waits() {
    assert_eq!(waits(&[Duration::from_secs(2); 100]), [0; 100]);
    assert_eq!(waits(&[Duration::from_secs(86_400); 100]), [0; 100]);
}

#[test]
fn a_guest_just_below_the_window_waits() {
    let waits = waits(&[Duration::from_millis(1999); 7]);
    assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn a_long_run_resets_the_count_of_fast_restarts() {
    let mut lives = [QUICK; 14];
    // Five quick restarts are in a window again at the last of these.
    lives[7] = WINDOW;
    assert_eq!(waits(&lives), [0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn waiting_does_not_count_as_running() {
    // The last wait is six times the window.
    assert_eq!(waits(&[QUICK; 30]).last(), Some(&60));
}

#[test]
fn extreme_times_do_not_overflow() {
    let mut brake = Brake::default();
    for (start, end) in [
        (Duration::MAX, Duration::ZERO),
        (Duration::ZERO, Duration::MAX),
    ] {
        for _ in 0..20 {
            brake.started(start);
            assert!(brake.rebooted(end) <= LONGEST_WAIT);
        }
    }
}

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
fn a_tight_loop_waits_after_five_restarts_twice_as_long_each_time_up_to_a_minute() {
    let waits = waits(&[QUICK; 14]);
    assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn a_guest_that_takes_its_time_never_waits() {
    assert_eq!(waits(&[Duration::from_secs(2); 100]), [0; 100]);
    assert_eq!(waits(&[Duration::from_secs(86_400); 100]), [0; 100]);
}

#[test]
fn a_guest_that_takes_a_little_less_waits() {
    let waits = waits(&[Duration::from_millis(1999); 7]);
    assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn a_guest_that_came_up_begins_anew() {
    let mut lives = [QUICK; 14];
    // Five quick restarts are in a window again at the last of these.
    lives[7] = WINDOW;
    assert_eq!(waits(&lives), [0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn what_is_waited_does_not_count_as_running() {
    // The last wait is six times the window.
    assert_eq!(waits(&[QUICK; 30]).last(), Some(&60));
}

#[test]
fn a_clock_at_its_ends_overflows_nothing() {
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

use super::*;
use crate::testing::properties;
use proptest::prelude::*;

fn bucket(size: u64, refill_time: u64, burst: u64) -> TokenBucket {
    TokenBucket {
        size,
        refill_time,
        one_time_burst: Some(burst),
    }
}

fn bytes(bandwidth: TokenBucket) -> resources::RateLimiter {
    resources::RateLimiter {
        bandwidth: Some(bandwidth),
        ops: None,
    }
}

fn operations(ops: TokenBucket) -> resources::RateLimiter {
    resources::RateLimiter {
        bandwidth: None,
        ops: Some(ops),
    }
}

/// Sends operations of `each` bytes as fast as `limiter` allows, from `start` for `time`. Returns their number.
fn count(limiter: &mut RateLimiter, each: u64, start: Duration, time: Duration) -> u64 {
    let mut now = start;
    let mut sent = 0;
    loop {
        match limiter.take(each, now) {
            Ok(()) => sent += 1,
            Err(until) => {
                assert!(until > now, "a wait that is none");
                now = until;
            }
        }
        if now - start > time {
            return sent;
        }
    }
}

#[test]
fn rates_hold_within_a_percent() {
    // Tokens per second, from 10 operations to 10 GB, with refill times other than a second.
    for (rate, each) in [
        (10_u64, 1_u64),
        (1_000, 1),
        (100_000, 1),
        (1_000_000, 1500),
        (123_456_789, 4096),
        (1_000_000_000, 65536),
        (10_000_000_000, 1 << 20),
    ] {
        for refill_ms in [100_u64, 333, 1000, 7000] {
            let size = rate * refill_ms / 1000;
            let mut limiter = RateLimiter::new(&bytes(bucket(size, refill_ms, 0)), Duration::ZERO);
            // Empty the bucket first.
            while limiter.take(each.min(size), Duration::ZERO).is_ok() {}
            let time = Duration::from_secs_f64(5_000.0 * each as f64 / rate as f64);
            let sent = count(&mut limiter, each, Duration::ZERO, time) * each;
            let wanted = size as f64 / (refill_ms as f64 / 1000.0) * time.as_secs_f64();
            let ratio = sent as f64 / wanted;
            assert!(
                (0.99..1.01).contains(&ratio),
                "{rate}/s filled in {refill_ms} ms: {ratio}"
            );
        }
    }
}

#[test]
fn operations_and_bytes_are_both_limited() {
    let config = resources::RateLimiter {
        bandwidth: Some(bucket(1000, 1000, 0)),
        ops: Some(bucket(10, 1000, 0)),
    };
    for (each, wanted) in [(1, 10), (50, 10), (100, 10), (200, 5), (0, 10)] {
        let mut limiter = RateLimiter::new(&config, Duration::ZERO);
        count(&mut limiter, each, Duration::ZERO, Duration::from_secs(1));
        let start = Duration::from_secs(10);
        // The full bucket, and the refill of 100 seconds.
        let sent = count(&mut limiter, each, start, Duration::from_secs(100));
        assert!(sent.abs_diff(wanted * 101) <= 1, "{each} bytes: {sent}");
    }
    // A request that waits for one bucket takes nothing from the other.
    let mut limiter = RateLimiter::new(&config, Duration::ZERO);
    limiter.take(1000, Duration::ZERO).unwrap();
    for _ in 0..100 {
        let until = limiter.take(1, Duration::ZERO).unwrap_err();
        assert_eq!(until, Duration::from_millis(1));
    }
    for _ in 0..9 {
        limiter.take(0, Duration::ZERO).unwrap();
    }
}

#[test]
fn the_burst_is_spent_first_and_once() {
    let mut limiter = RateLimiter::new(&operations(bucket(10, 1000, 25)), Duration::ZERO);
    let passed = (0..100).take_while(|_| limiter.take(0, Duration::ZERO).is_ok());
    assert_eq!(passed.count(), 35);
    let hour = Duration::from_secs(3600);
    let passed = (0..100).take_while(|_| limiter.take(0, hour).is_ok());
    assert_eq!(passed.count(), 10);
    // A request may take the rest of the burst and the remainder from the bucket.
    let mut bucket = Bucket::new(&bucket(10, 1000, 5), Duration::ZERO).unwrap();
    bucket.take(12, Duration::ZERO).unwrap();
    bucket.take(3, Duration::ZERO).unwrap();
    assert_eq!(
        bucket.take(1, Duration::ZERO),
        Err(Duration::from_millis(100))
    );
}

#[test]
fn a_request_larger_than_the_bucket_leaves_a_debt() {
    let mut bucket = Bucket::new(&bucket(1000, 1000, 0), Duration::ZERO).unwrap();
    bucket.take(10_000, Duration::ZERO).unwrap();
    // A debt of 9000, and one token to send.
    let until = bucket.take(1, Duration::ZERO).unwrap_err();
    assert_eq!(until, Duration::from_millis(9001));
    assert_eq!(bucket.take(1, until - Duration::from_nanos(1)), Err(until));
    bucket.take(1, until).unwrap();
    let until = bucket.take(5000, until).unwrap_err();
    assert_eq!(until, Duration::from_millis(10_001), "needs a full one");
    bucket.take(5000, until).unwrap();
    assert_eq!(bucket.take(0, until), Ok(()), "nothing needs nothing");
}

#[test]
fn zero_disables_and_absent_keeps_a_bucket() {
    let now = Duration::ZERO;
    for off in [bucket(0, 100, 5), bucket(100, 0, 5), bucket(0, 0, 0)] {
        assert!(!RateLimiter::new(&bytes(off), now).limits());
    }
    let both = resources::RateLimiter {
        bandwidth: Some(bucket(100, 1000, 0)),
        ops: Some(bucket(3, 1000, 0)),
    };
    let mut limiter = RateLimiter::new(&both, now);
    limiter.take(50, now).unwrap();
    limiter.update(&operations(bucket(1, 1000, 1)), now);
    limiter.take(50, now).unwrap();
    assert_eq!(
        limiter.take(1, now),
        Err(Duration::from_millis(10)),
        "the bucket of bytes continued, and the bucket of operations is new"
    );
    limiter.update(&bytes(bucket(0, 0, 0)), now);
    assert_eq!(limiter.take(1 << 40, now), Ok(()), "the second operation");
    assert_eq!(limiter.take(0, now), Err(Duration::from_secs(1)));
    limiter.update(&resources::RateLimiter::default(), now);
    assert!(limiter.limits());
    limiter.update(&operations(bucket(0, 0, 0)), now);
    assert!(!limiter.limits());
    assert_eq!(limiter.take(u64::MAX, now), Ok(()));
}

#[test]
fn any_configuration_and_clock_are_survived() {
    let number = || prop_oneof![Just(0_u64), 1..100_u64, Just(u64::MAX), any::<u64>()];
    let steps = proptest::collection::vec((number(), number()), 1..50);
    let run = |(size, refill, burst, steps): (u64, u64, u64, Vec<(u64, u64)>)| {
        let Some(mut bucket) = Bucket::new(&bucket(size, refill, burst), Duration::ZERO) else {
            return Ok(());
        };
        for (tokens, now) in steps {
            let now = Duration::from_nanos(now);
            if let Err(until) = bucket.take(tokens, now) {
                prop_assert!(until > now);
                // The clock cannot represent longer waits.
                if until.as_nanos() < u128::from(u64::MAX) {
                    prop_assert_eq!(bucket.check(tokens, until), Ok(()));
                }
            }
        }
        Ok(())
    };
    properties()
        .run(&(number(), number(), number(), steps), run)
        .unwrap();
}

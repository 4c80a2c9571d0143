use super::*;
use crate::vcpu::install_signal;
use std::sync::atomic::AtomicU64;

/// Starts a thread that passes the gate again and again, and sleeps in between like an idle guest.
fn thread(gate: &Arc<Gate>, passed: &Arc<AtomicU64>, idle: Duration) -> JoinHandle<()> {
    let (gate, passed) = (gate.clone(), passed.clone());
    std::thread::spawn(move || {
        let mut jobs = 0;
        while !matches!(gate.pass(&mut jobs), Pass::End) {
            passed.fetch_add(1, Ordering::Relaxed);
            // Unlike `std::thread::sleep`, this sleep ends with a signal.
            let time = libc::timespec {
                tv_sec: i64::try_from(idle.as_secs()).unwrap(),
                tv_nsec: idle.subsec_nanos().into(),
            };
            let _ = nix::time::clock_nanosleep(
                nix::time::ClockId::CLOCK_MONOTONIC,
                nix::time::ClockNanosleepFlags::empty(),
                &time.into(),
            );
        }
    })
}

#[test]
fn threads_stop_continue_and_end_from_any_point() {
    install_signal().unwrap();
    let (gate, passed) = (Gate::new(), Arc::new(AtomicU64::new(0)));
    let idle = [Duration::ZERO, Duration::from_secs(3600)];
    let threads = idle.map(|idle| thread(&gate, &passed, idle));
    let vcpus = Vcpus::new(gate, threads.into());
    vcpus.pause();
    assert_eq!(
        passed.load(Ordering::Relaxed),
        0,
        "the gate is shut at first"
    );
    for _ in 0..200 {
        let before = passed.load(Ordering::Relaxed);
        vcpus.resume();
        while passed.load(Ordering::Relaxed) == before {
            std::thread::yield_now();
        }
        vcpus.pause();
        let paused = passed.load(Ordering::Relaxed);
        std::thread::yield_now();
        assert_eq!(passed.load(Ordering::Relaxed), paused);
    }
    vcpus.resume();
    vcpus.end();
}

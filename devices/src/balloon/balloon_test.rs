use super::*;
use crate::testing::*;
use crate::util::metrics::Value;
use crate::{GuestMemory, lock};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestRegionMmap};

const VERSION_1: u64 = 1 << 32;
const INDIRECT: u64 = 1 << 28;
const PAGE: u64 = 4096;
/// First page of the memory under test. The guest's requests are in the pages of DATA.
const FIRST: u32 = 0x80;
const SPARE: u64 = FIRST as u64 * PAGE;
const INFLATE: usize = 0;

fn all() -> resources::Balloon {
    resources::Balloon {
        amount_mib: 2,
        deflate_on_oom: true,
        stats_polling_interval_s: 1,
        free_page_hinting: true,
        free_page_reporting: true,
    }
}

fn plain() -> resources::Balloon {
    resources::Balloon::default()
}

/// A guest with used spare memory.
struct Bench {
    guest: FakeGuest,
    rings: Vec<Ring>,
}

impl Bench {
    fn new(config: &resources::Balloon) -> Self {
        let mut bench = Self::unstarted(config);
        bench.restart(bench.guest.offered());
        bench
    }

    fn unstarted(config: &resources::Balloon) -> Self {
        Self::with(config, memory())
    }

    fn with(config: &resources::Balloon, mem: GuestMemory) -> Self {
        let balloon = Balloon::new(config).unwrap();
        let guest = FakeGuest::with(Box::new(balloon), mem, TestLoop::spawn());
        let len = MEM - usize::try_from(SPARE).unwrap();
        let used = vec![0x5a; len];
        guest.mem.write_slice(&used, GuestAddress(SPARE)).unwrap();
        Self {
            guest,
            rings: Vec::new(),
        }
    }

    fn restart(&mut self, features: u64) {
        self.rings = self.guest.start(features, 16);
        // Each queue is served once at the start.
        self.guest.settle();
    }

    fn mem(&self) -> &GuestMemory {
        &self.guest.mem
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.mem().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn put_words(&self, at: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.put(at, &bytes);
    }

    fn request(&mut self, queue: usize, buffers: &[(u64, u32, bool)]) {
        assert_eq!(self.guest.request(&mut self.rings[queue], buffers), 0);
    }

    fn inflate(&mut self, pages: &[u32]) {
        self.put_words(DATA, pages);
        let len = u32::try_from(4 * pages.len()).unwrap();
        self.request(INFLATE, &[(DATA, len, false)]);
    }

    /// Returns the released spare pages by number.
    fn gone(&self) -> Vec<u32> {
        let last = u32::try_from(MEM as u64 / PAGE).unwrap();
        let mut page = [0; 4096];
        let mut is_gone = |n: &u32| {
            let at = GuestAddress(u64::from(*n) * PAGE);
            self.mem().read_slice(&mut page, at).unwrap();
            let zero = page.iter().filter(|byte| **byte == 0).count();
            assert!(zero == 0 || zero == page.len(), "part of a page");
            zero > 0
        };
        (FIRST..last).filter(|n| is_gone(n)).collect()
    }

    fn count(&self, name: &str) -> u64 {
        let mut found = None;
        let metrics = lock(&self.guest.transport).metrics().unwrap();
        assert_eq!(metrics.group(), "balloon");
        metrics.visit(&mut |n, value| {
            if let (true, Value::Count(count)) = (n == name, value) {
                found = Some(count);
            }
        });
        found.unwrap()
    }

    fn update(&self, change: DeviceUpdate) -> Result<(), UpdateError> {
        lock(&self.guest.transport).update(change)
    }

    fn report(&self) -> BalloonReport {
        match lock(&self.guest.transport).report() {
            Report::Balloon(report) => report,
            Report::None => panic!("no report"),
        }
    }

    fn statistics(&self) -> BalloonStats {
        self.report().statistics.unwrap()
    }

    /// Returns word `n` of the configuration space.
    fn config(&self, n: u32) -> u32 {
        self.guest.read(0x100 + 4 * n)
    }

    /// Returns true if the configuration changed since the last call.
    fn told_of_config(&self) -> bool {
        self.guest.settle();
        let told = self.guest.read(0x60) & 2 != 0;
        self.guest.write(0x64, 2);
        told
    }

    /// Sends statistics; the device keeps the buffer.
    fn tell(&mut self, pairs: &[(u16, u64)]) {
        let bytes: Vec<u8> = pairs
            .iter()
            .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat())
            .collect();
        self.put(DATA, &bytes);
        let len = u32::try_from(bytes.len()).unwrap();
        self.rings[2].add(&self.guest.mem, &[(DATA, len, false)]);
        self.guest.kick(2);
        self.guest.settle();
    }

    fn returned(&mut self, queue: usize) -> usize {
        self.guest.settle();
        let mem = self.guest.mem.clone();
        std::iter::from_fn(|| self.rings[queue].take_used(&mem)).count()
    }

    fn still_runs(&self) {
        self.guest.settle();
        assert_eq!(self.guest.read(0x70), 15);
    }
}

#[test]
fn inflated_pages_are_released() {
    let mut bench = Bench::new(&plain());
    let mut pages: Vec<u32> = (FIRST + 8..FIRST + 20).rev().collect();
    pages.extend([FIRST + 2, FIRST + 9, FIRST + 2, 0xff]);
    bench.inflate(&pages);
    let mut expected = vec![FIRST + 2];
    expected.extend(FIRST + 8..FIRST + 20);
    expected.push(0xff);
    assert_eq!(bench.gone(), expected);
    // The guest takes a page back by touching it.
    bench.put_words(DATA, &[FIRST + 2]);
    bench.request(1, &[(DATA, 4, false)]);
    bench.put(SPARE + 2 * PAGE, &[1; 4096]);
    assert_eq!(bench.gone(), expected[1..]);
    let counts = ["inflate_count", "deflate_count"].map(|name| bench.count(name));
    assert_eq!(counts, [2, 2]);
    assert_eq!(bench.count("event_fails"), 0);
}

/// Returns memory that maps `file` shared, as that of a forkable guest.
fn sharing(file: &std::fs::File) -> GuestMemory {
    file.set_len(MEM as u64).unwrap();
    let bitmap = vm_memory::bitmap::NewBitmap::with_len(MEM);
    let mapping = MmapRegionBuilder::new_with_bitmap(MEM, Some(bitmap))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED)
        .with_file_offset(FileOffset::new(file.try_clone().unwrap(), 0));
    let region = GuestRegionMmap::new(mapping.build().unwrap(), GuestAddress(0)).unwrap();
    GuestMemory::from_regions(vec![region]).unwrap()
}

/// Maps `file` privately over `mem`, as a fork does.
#[expect(unsafe_code, reason = "mapping over memory")]
fn freeze(mem: &GuestMemory, file: &std::fs::File) {
    let region = mem.iter().next().unwrap();
    // SAFETY: the memory under test, which nothing in Rust refers into.
    let mapped = unsafe {
        libc::mmap(
            region.as_ptr().cast(),
            MEM,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(mapped, libc::MAP_FAILED);
}

#[test]
fn a_forkable_guest_releases_file_pages_until_its_first_fork() {
    let file = memfd_create(c"guest-memory", MFdFlags::MFD_CLOEXEC).unwrap();
    let file = std::fs::File::from(file);
    let blocks = || file.metadata().unwrap().blocks() * 512 / PAGE;
    let config = resources::Balloon {
        free_page_reporting: true,
        ..plain()
    };
    let mut bench = Bench::with(&config, sharing(&file));
    bench.restart(bench.guest.offered());
    let pages: Vec<u32> = (FIRST..FIRST + 16).collect();
    // The request's own pages exist after the first request.
    bench.inflate(&[]);
    bench.inflate(&pages[..1]);
    bench.put(SPARE, &[1; 4096]);
    let before = blocks();
    bench.inflate(&pages);
    assert_eq!(bench.gone(), pages);
    // Reading the pages to check them has allocated some.
    bench.inflate(&pages);
    assert_eq!(blocks(), before - 16);
    bench.request(2, &[(SPARE + 16 * PAGE, 8 * 4096, true)]);
    assert_eq!(blocks(), before - 24);

    freeze(bench.mem(), &file);
    let written = |bench: &Bench| {
        let region = bench.mem().iter().next().unwrap();
        let bitmap: &Option<AtomicBitmap> = (**region).bitmap();
        bitmap.as_ref().unwrap().get_and_reset()
    };
    written(&bench);
    let [kept, changed] = [FIRST + 30, FIRST + 31];
    bench.put(u64::from(changed) * PAGE, &[7; 4096]);
    let before = blocks();
    bench.inflate(&[kept, changed]);
    // No shared page was released. Released private pages have the shared content again and are marked dirty.
    assert_eq!(blocks(), before);
    let mut found = [0; 4096];
    let at = GuestAddress(u64::from(changed) * PAGE);
    bench.mem().read_slice(&mut found, at).unwrap();
    assert_eq!(found, [0x5a; 4096]);
    let noted = written(&bench);
    for page in [kept, changed] {
        let word = usize::try_from(page / 64).unwrap();
        assert_ne!(noted[word] & 1 << (page % 64), 0);
    }
    assert_eq!(bench.count("event_fails"), 0);
}

#[test]
fn pages_outside_guest_memory_are_ignored() {
    let mut bench = Bench::new(&plain());
    let outside = [0x100, 0x101, 0x10_0000, 0x7fff_ffff, u32::MAX];
    bench.inflate(&outside);
    assert!(bench.gone().is_empty());
    let mut some = outside.to_vec();
    some.insert(2, FIRST);
    bench.inflate(&some);
    assert_eq!(bench.gone(), [FIRST]);
    assert_eq!(bench.count("event_fails"), 2);
    bench.still_runs();
}

#[test]
fn page_lists_of_any_shape_are_read_to_their_limit() {
    let mut bench = Bench::new(&plain());
    bench.put_words(DATA, &[FIRST, FIRST + 1, FIRST + 2]);
    // Split anywhere, with part of a number at the end.
    bench.request(
        INFLATE,
        &[
            (DATA, 3, false),
            (DATA + 3, 4, false),
            (DATA + 7, 3, false),
            (DATA, 0, false),
        ],
    );
    assert_eq!(bench.gone(), [FIRST, FIRST + 1]);
    for buffers in [
        &[(DATA + 8, 4, true)][..],
        &[(DATA + 8, 0, false)],
        &[(MEM as u64 - 4, 8, false)],
        &[(u64::MAX - 3, 4, false)],
        &[(DATA, 4, true), (DATA + 8, 4, false)],
    ] {
        bench.request(INFLATE, buffers);
    }
    assert_eq!(bench.gone(), [FIRST, FIRST + 1]);
    assert_eq!(bench.count("event_fails"), 4);
    // Longer than the device reads; page 0x5a5a5a5a is outside memory.
    let len = u32::try_from(MEM as u64 - SPARE).unwrap();
    bench.request(INFLATE, &[(SPARE, len, false)]);
    bench.still_runs();
}

#[test]
fn queues_are_numbered_by_negotiated_features() {
    let every = F_STATS_VQ | F_FREE_PAGE_HINT | F_PAGE_REPORTING;
    for (features, expected) in [
        (0, &[][..]),
        (F_STATS_VQ, &[Role::Statistics]),
        (F_FREE_PAGE_HINT, &[Role::Hinting]),
        (F_PAGE_REPORTING | F_DEFLATE_ON_OOM, &[Role::Reporting]),
        (every, &[Role::Statistics, Role::Hinting, Role::Reporting]),
    ] {
        assert_eq!(roles(features)[..2], [Role::Inflate, Role::Deflate]);
        assert_eq!(&roles(features)[2..], expected, "{features:#x}");
    }
    let mut bench = Bench::unstarted(&all());
    assert_eq!(bench.guest.offered() & 0xff, every | F_DEFLATE_ON_OOM);
    // A driver that negotiates reporting only.
    bench.restart(VERSION_1 | F_PAGE_REPORTING);
    assert_eq!(bench.rings.len(), 5);
    bench.request(2, &[(SPARE, 4096, true)]);
    assert_eq!(bench.gone(), [FIRST]);
    for queue in 3..5 {
        bench.guest.kick(queue);
    }
    bench.still_runs();
    let change = DeviceUpdate::HintingStart {
        acknowledge_on_stop: true,
    };
    assert!(matches!(
        bench.update(change),
        Err(UpdateError::Unsupported)
    ));
    let bench = Bench::new(&plain());
    assert_eq!(bench.guest.offered() & 0xff, 0);
    assert_eq!(bench.rings.len(), 2);
}

#[test]
fn a_new_size_is_requested_and_the_reached_size_reported() {
    let bench = Bench::unstarted(&all());
    assert_eq!([0, 1, 2, 3].map(|n| bench.config(n)), [512, 0, 0, 0]);
    let change = |mib| DeviceUpdate::BalloonTarget { mib };
    assert!(matches!(
        bench.update(change(1)),
        Err(UpdateError::NotActivated)
    ));
    let mut bench = bench;
    bench.restart(bench.guest.offered());
    bench.told_of_config();
    let generation = bench.guest.read(0xfc);
    bench.update(change(3)).unwrap();
    assert!(bench.told_of_config());
    assert_eq!(bench.config(0), 768);
    assert_ne!(bench.guest.read(0xfc), generation);
    let error = bench.update(change(1 << 24)).unwrap_err().to_string();
    assert_eq!(error, "Amount of pages requested cannot fit in `u32`.");
    assert!(
        Balloon::new(&resources::Balloon {
            amount_mib: 1 << 24,
            ..plain()
        })
        .is_err()
    );
    bench.guest.write(0x104, 300);
    let at = WINDOW_BASE + 0x100;
    for (offset, len) in [(0, 4), (4, 2), (4, 8), (5, 4), (8, 4), (12, 4), (400, 4)] {
        bench.guest.bus.write(at + offset, &vec![0xff; len]);
    }
    assert_eq!([0, 1, 2, 3].map(|n| bench.config(n)), [768, 300, 0, 0]);
    let BalloonStats {
        target_pages,
        actual_pages,
        target_mib,
        actual_mib,
        ..
    } = bench.statistics();
    assert_eq!((target_pages, actual_pages), (768, 300));
    assert_eq!((target_mib, actual_mib), (3, 1));
    assert_eq!(bench.report().config.amount_mib, 3);
    // The driver is not notified of its own write.
    bench.told_of_config();
    bench
        .update(DeviceUpdate::StatisticsInterval { seconds: 9 })
        .unwrap();
    assert!(!bench.told_of_config());
    bench.guest.write(0x70, 0);
    assert_eq!(bench.statistics().actual_pages, 0);
    assert_eq!(bench.statistics().target_pages, 768, "is still wanted");
}

#[test]
fn statistics_are_requested_at_each_interval() {
    let mut bench = Bench::new(&all());
    assert_eq!(bench.statistics().free_memory, None);
    let pairs: Vec<(u16, u64)> = (0..20).map(|tag| (tag, 100 + u64::from(tag))).collect();
    bench.tell(&pairs);
    let stats = bench.statistics();
    let expected = BalloonStats {
        target_pages: 512,
        actual_pages: 0,
        target_mib: 2,
        actual_mib: 0,
        swap_in: Some(100),
        swap_out: Some(101),
        major_faults: Some(102),
        minor_faults: Some(103),
        free_memory: Some(104),
        total_memory: Some(105),
        available_memory: Some(106),
        disk_caches: Some(107),
        hugetlb_allocations: Some(108),
        hugetlb_failures: Some(109),
        oom_kill: Some(110),
        alloc_stall: Some(111),
        async_scan: Some(112),
        direct_scan: Some(113),
        async_reclaim: Some(114),
        direct_reclaim: Some(115),
    };
    assert_eq!(stats, expected);
    for free in [1, 2] {
        // After a second.
        assert_eq!(bench.guest.wait_used(&mut bench.rings[2]).1, 0);
        bench.tell(&[(4, free)]);
        assert_eq!(bench.statistics().free_memory, Some(free));
        assert_eq!(bench.statistics().swap_in, None, "not told this time");
    }
    assert_eq!(bench.count("stats_updates_count"), 3);
    // The timer expires without a buffer, too.
    bench.guest.wait_used(&mut bench.rings[2]);
    std::thread::sleep(Duration::from_millis(1100));
    bench.still_runs();
}

#[test]
fn statistics_cannot_be_switched_after_activation() {
    let interval = |seconds| DeviceUpdate::StatisticsInterval { seconds };
    let mut bench = Bench::new(&resources::Balloon {
        stats_polling_interval_s: 1000,
        ..all()
    });
    bench.tell(&[(4, 1)]);
    let error = bench.update(interval(0)).unwrap_err().to_string();
    assert_eq!(
        error,
        "Statistics cannot be enabled/disabled after activation."
    );
    // The change itself returns the buffer.
    bench.returned(2);
    bench.tell(&[(4, 1)]);
    assert_eq!(bench.returned(2), 0);
    bench.update(interval(1)).unwrap();
    assert_eq!(bench.returned(2), 1);
    bench.tell(&[(4, 1)]);
    bench.guest.wait_used(&mut bench.rings[2]);
    assert_eq!(bench.report().config.stats_polling_interval_s, 1);

    let bench = Bench::new(&plain());
    assert_eq!(bench.report().statistics, None);
    bench.update(interval(0)).unwrap();
    assert!(matches!(
        bench.update(interval(1)),
        Err(UpdateError::StatisticsState)
    ));
}

#[test]
fn invalid_statistics_are_ignored() {
    let slow = resources::Balloon {
        stats_polling_interval_s: 1000,
        ..all()
    };
    let mut bench = Bench::new(&slow);
    bench.tell(&[(99, 1), (4, 1), (u16::MAX, 2), (4, 7)]);
    assert_eq!(bench.statistics().free_memory, Some(7));
    // The first of two buffers is returned; a pause returns the other.
    bench.tell(&[(5, 8)]);
    assert_eq!(bench.returned(2), 1);
    lock(&bench.guest.transport).pause();
    assert_eq!(bench.returned(2), 1);
    lock(&bench.guest.transport).resume();
    assert_eq!(bench.statistics().total_memory, Some(8));
    for (at, len, writable) in [
        (MEM as u64 - 4, 10, false),
        (MEM as u64 - 4, 0x1000_0000, false),
        (DATA, 0x1000_0000, true),
        (DATA, 0xf_0000, false),
    ] {
        bench.rings[2].add(&bench.guest.mem, &[(at, len, writable)]);
        bench.guest.kick(2);
    }
    bench.returned(2);
    assert_eq!(bench.count("stats_update_fails"), 2);
    bench.still_runs();
}

const HINTS: usize = 3;

impl Bench {
    fn say_command(&mut self, command: u32) {
        self.put_words(DATA, &[command]);
        self.request(HINTS, &[(DATA, 4, false)]);
    }

    fn hint(&mut self, page: u32, len: u32) {
        let at = u64::from(page) * PAGE;
        self.request(HINTS, &[(at, len, true)]);
    }

    fn status(&self) -> (u32, Option<u32>) {
        let HintingStatus {
            host_cmd,
            guest_cmd,
        } = self.report().hinting.unwrap();
        (host_cmd, guest_cmd)
    }

    fn start_run(&self, acknowledge_on_stop: bool) -> u32 {
        self.told_of_config();
        let change = DeviceUpdate::HintingStart {
            acknowledge_on_stop,
        };
        self.update(change).unwrap();
        assert!(self.told_of_config());
        self.config(2)
    }
}

#[test]
fn a_hinting_run_releases_pages_until_the_guest_ends_it() {
    let mut bench = Bench::new(&all());
    assert_eq!(bench.status(), (0, None));
    bench.hint(FIRST, 4096);
    assert!(bench.gone().is_empty(), "not asked for");
    for (run, page) in [(2, FIRST), (3, FIRST + 10)] {
        assert_eq!(bench.start_run(true), run);
        bench.hint(page + 5, 4096);
        bench.say_command(run);
        assert_eq!(bench.status(), (run, Some(run)));
        bench.hint(page, 2 * 4096);
        let generation = bench.guest.read(0xfc);
        bench.say_command(0);
        assert!(bench.told_of_config());
        assert_ne!(bench.guest.read(0xfc), generation);
        assert_eq!(bench.status(), (1, Some(0)));
        assert_eq!(bench.config(2), 1);
        bench.hint(page + 5, 4096);
    }
    let expected = [FIRST, FIRST + 1, FIRST + 10, FIRST + 11];
    assert_eq!(bench.gone(), expected);
    assert_eq!(bench.count("free_page_hint_freed"), 4 * PAGE);
    assert_eq!(bench.count("free_page_hint_fails"), 0);
}

#[test]
fn a_run_that_is_not_acknowledged_waits_for_its_stop() {
    let mut bench = Bench::new(&all());
    let run = bench.start_run(false);
    bench.say_command(run);
    bench.say_command(0);
    assert!(!bench.told_of_config());
    assert_eq!(bench.status(), (run, Some(0)));
    bench.update(DeviceUpdate::HintingStop).unwrap();
    assert!(bench.told_of_config());
    assert_eq!(bench.status(), (1, Some(0)));
    // Hints of a run that the host has replaced are ignored.
    let first = bench.start_run(true);
    bench.say_command(first);
    let second = bench.start_run(true);
    bench.hint(FIRST, 4096);
    bench.say_command(77);
    bench.hint(FIRST, 4096);
    assert!(bench.gone().is_empty());
    bench.say_command(second);
    bench.hint(FIRST, 4096);
    assert_eq!(bench.gone(), [FIRST]);
    bench.guest.write(0x70, 0);
    assert_eq!(bench.status(), (0, None));
}

#[test]
fn run_numbers_differ_from_commands() {
    let mut told = Told {
        last_run: u32::MAX - 1,
        ..Told::default()
    };
    let runs = [(); 3].map(|()| told.start_run(false));
    assert_eq!(runs, [u32::MAX, 2, 3]);
}

#[test]
fn invalid_hints_are_counted() {
    let mut bench = Bench::new(&all());
    let run = bench.start_run(true);
    bench.say_command(run);
    for buffers in [
        &[(DATA, 3, false)][..],
        &[(MEM as u64, 4, false)],
        &[(MEM as u64 - PAGE, 8192, true)],
        &[(1 << 40, 4096, true)],
        &[(u64::MAX - 4095, 4096, true)],
    ] {
        bench.request(HINTS, buffers);
    }
    // The last range has no complete page.
    assert_eq!(bench.count("free_page_hint_fails"), 4);
    assert!(bench.gone().is_empty());
    bench.still_runs();
}

#[test]
fn a_restored_balloon_has_its_size_and_statistics() {
    let mut bench = Bench::new(&all());
    let mib = 3;
    bench.update(DeviceUpdate::BalloonTarget { mib }).unwrap();
    assert!(bench.guest.bus.write(WINDOW_BASE + 0x104, &[7, 0, 0, 0]));
    bench.tell(&[(4, 1 << 20)]);
    let run = bench.start_run(true);
    bench.say_command(run);
    lock(&bench.guest.transport).pause();
    let (report, config) = (bench.report(), [0, 1, 2].map(|n| bench.config(n)));
    assert_eq!(report.statistics.unwrap().free_memory, Some(1 << 20));
    // The statistics buffer was returned.
    assert_eq!(bench.returned(2), 1);

    let state = lock(&bench.guest.transport).save();
    let balloon = Box::new(Balloon::new(&all()).unwrap());
    let guest = FakeGuest::with(balloon, bench.mem().clone(), TestLoop::spawn());
    lock(&guest.transport).restore(&state).unwrap();
    bench.guest = guest;
    let restored = [0, 1, 2].map(|n| bench.config(n));
    assert_eq!((bench.report(), restored), (report, config));
    lock(&bench.guest.transport).resume();
    assert!(!bench.told_of_config(), "the driver knows all that");
    bench.say_command(0);
    assert_eq!(
        bench.status(),
        (DONE, Some(0)),
        "the run continues to its end"
    );
    assert!(bench.start_run(true) > run, "and the next is another");
    bench.inflate(&[FIRST]);
    assert_eq!(bench.gone(), [FIRST]);
}

#[test]
fn reported_pages_are_released_as_whole_pages() {
    let mut bench = Bench::new(&resources::Balloon {
        free_page_reporting: true,
        ..plain()
    });
    bench.request(
        2,
        &[
            (SPARE + 100, 2 * 4096, true),
            (SPARE + 8 * PAGE, 3 * 4096 + 5, true),
            (SPARE + 20 * PAGE + 1, 4094, true),
            (SPARE + 30 * PAGE, 0, true),
            (MEM as u64 - PAGE, 8192, true),
        ],
    );
    let expected = [FIRST + 1, FIRST + 8, FIRST + 9, FIRST + 10];
    assert_eq!(bench.gone(), expected);
    assert_eq!(bench.count("free_page_report_freed"), 4 * PAGE);
    assert_eq!(bench.count("free_page_report_fails"), 1);
    // A device-readable buffer reports nothing.
    bench.request(2, &[(SPARE, 4096, false)]);
    assert_eq!(bench.gone(), expected);
}

#[test]
fn a_ring_full_of_all_memory_is_served_in_turns() {
    let mut bench = Bench::unstarted(&resources::Balloon {
        free_page_reporting: true,
        ..plain()
    });
    bench.restart(VERSION_1 | INDIRECT | F_PAGE_REPORTING);
    // A table with 1024 times the spare memory; the table itself is elsewhere.
    let table = DATA;
    let len = u32::try_from(MEM as u64 - SPARE).unwrap();
    let mut entries = Ring::new(0, 1024);
    entries.desc = table;
    for n in 0..1024 {
        let more = u16::from(n < 1023);
        entries.set_descriptor(bench.mem(), n, (SPARE, len, 2 | more, n + 1));
    }
    for head in 0..16 {
        let ring = &mut bench.rings[2];
        ring.set_descriptor(&bench.guest.mem, head, (table, 1024 * 16, 4, 0));
        ring.publish(&bench.guest.mem, head);
    }
    bench.guest.kick(2);
    for _ in 0..16 {
        bench.guest.wait_used(&mut bench.rings[2]);
    }
    assert_eq!(bench.gone().len(), 0x80);
    assert!(bench.count("free_page_report_count") > 4, "one turn");
    bench.still_runs();
}

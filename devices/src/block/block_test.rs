use super::backing::BackingError;
use super::*;
use crate::testing::*;
use crate::virtio::buffers::Parts;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

const SECTORS: u64 = 128;

/// Addresses at which [`Disk::request`] puts header, data and status.
const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x100;
const OUT_DATA: u64 = DATA + 0x1000;
const IN_DATA: u64 = DATA + 0x2_0000;

fn options() -> BlockOptions {
    BlockOptions {
        serial: "serial-1".into(),
        read_only: false,
        flush: true,
        discard: true,
        ..BlockOptions::default()
    }
}

/// An image whose sectors hold their number.
fn image() -> NamedTempFile {
    let mut image = NamedTempFile::new().unwrap();
    for sector in 0..SECTORS {
        image.write_all(&sector.to_le_bytes().repeat(64)).unwrap();
    }
    image
}

/// Counts what reaches the engine's flush.
struct Counted {
    engine: SyncEngine,
    flushes: Arc<AtomicU32>,
}

impl DiskEngine for Counted {
    fn read(&mut self, mem: &GuestMemory, to: &Parts, offset: u64) -> io::Result<()> {
        self.engine.read(mem, to, offset)
    }
    fn write(&mut self, mem: &GuestMemory, from: &Parts, offset: u64) -> io::Result<()> {
        self.engine.write(mem, from, offset)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.engine.flush()
    }
    fn discard(&mut self, bytes: Range<u64>) -> io::Result<()> {
        self.engine.discard(bytes)
    }
    fn write_zeroes(&mut self, bytes: Range<u64>, unmap: bool) -> io::Result<()> {
        self.engine.write_zeroes(bytes, unmap)
    }
}

struct CountedBlock {
    block: Block,
    flushes: Arc<AtomicU32>,
}

impl VirtioDevice for CountedBlock {
    fn offer(&self) -> Offer {
        self.block.offer()
    }
    fn config(&self) -> std::borrow::Cow<'_, [u8]> {
        self.block.config()
    }
    fn start(&mut self, features: u64) -> io::Result<Box<dyn QueueHandler>> {
        let engine = Counted {
            engine: SyncEngine::new(self.block.backing.try_clone()?),
            flushes: self.flushes.clone(),
        };
        Ok(Box::new(self.block.handler(features, Box::new(engine))?))
    }
    fn save(&self) -> DeviceState {
        self.block.save()
    }
    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        self.block.restore(state)
    }
}

struct Disk {
    guest: FakeGuest,
    ring: Ring,
    flushes: Arc<AtomicU32>,
}

impl Disk {
    fn new(path: &Path, options: BlockOptions) -> Self {
        Self::on(Backing::open(path, options.read_only).unwrap(), options)
    }

    fn on(backing: Backing, options: BlockOptions) -> Self {
        let flushes = Arc::new(AtomicU32::new(0));
        let guest = FakeGuest::new(Box::new(CountedBlock {
            block: Block::new(backing, options),
            flushes: flushes.clone(),
        }));
        let ring = guest.start(guest.offered(), 32).remove(0);
        Self {
            guest,
            ring,
            flushes,
        }
    }

    fn restart(&mut self, features: u64) {
        self.ring = self.guest.start(features, 32).remove(0);
    }

    fn offers(&self, feature: u32) -> bool {
        self.guest.offered() & 1 << feature != 0
    }

    fn header(&self, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.put(HEADER, &header);
        self.put(STATUS, &[0xee]);
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.guest.mem.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let at = GuestAddress(at);
        self.guest.mem.read_slice(&mut bytes, at).unwrap();
        bytes
    }

    /// Status, data, and the used length.
    fn request(&mut self, kind: u32, sector: u64, out: &[u8], len: u32) -> (u8, Vec<u8>, u32) {
        self.header(kind, sector);
        self.put(OUT_DATA, out);
        let mut buffers = vec![(HEADER, 16, false)];
        if !out.is_empty() {
            buffers.push((OUT_DATA, u32::try_from(out.len()).unwrap(), false));
        }
        if len != 0 {
            buffers.push((IN_DATA, len, true));
        }
        buffers.push((STATUS, 1, true));
        let used = self.guest.request(&mut self.ring, &buffers);
        let data = self.get(IN_DATA, usize::try_from(len).unwrap());
        (self.get(STATUS, 1)[0], data, used)
    }

    fn status(&mut self, kind: u32, sector: u64, out: &[u8]) -> u8 {
        self.request(kind, sector, out, 0).0
    }

    fn read(&mut self, sector: u64, sectors: u32) -> Vec<u8> {
        let (status, data, used) = self.request(IN, sector, &[], sectors * 512);
        assert_eq!((status, used), (OK, sectors * 512 + 1));
        data
    }

    fn flushes(&self) -> u32 {
        self.flushes.load(Ordering::Relaxed)
    }
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn contents(image: &NamedTempFile) -> Vec<u8> {
    std::fs::read(image.path()).unwrap()
}

#[test]
fn sectors_are_written_and_read_back() {
    let image = image();
    let mut disk = Disk::new(image.path(), options());
    assert_eq!(disk.read(3, 2)[512..], 4_u64.to_le_bytes().repeat(64));
    let (status, _, used) = disk.request(OUT, 5, &[0xab; 1024], 0);
    assert_eq!((status, used), (OK, 1));
    assert_eq!(disk.read(5, 2), [0xab; 1024]);
    let file = contents(&image);
    assert_eq!(file[5 * 512..7 * 512], [0xab; 1024]);
    assert_eq!(file[7 * 512..8 * 512], 7_u64.to_le_bytes().repeat(64));
    assert_eq!(
        disk.request(IN, SECTORS, &[], 0).0,
        OK,
        "nothing, at the end"
    );
    assert_eq!(disk.guest.read(0x70), 15);
}

#[test]
fn requests_may_be_split_anywhere() {
    let image = image();
    let mut disk = Disk::new(image.path(), options());
    // A header in pieces; data and status in pieces that do not end where they do.
    disk.header(IN, 9);
    let used = disk.guest.request(
        &mut disk.ring,
        &[
            (HEADER, 1, false),
            (HEADER + 1, 14, false),
            (0, 0, false),
            (HEADER + 15, 1, false),
            (IN_DATA, 511, true),
            (IN_DATA + 511, 0, true),
            (IN_DATA + 511, 514, true),
        ],
    );
    assert_eq!(used, 1025);
    let data = disk.get(IN_DATA, 1025);
    assert_eq!(data[..512], 9_u64.to_le_bytes().repeat(64));
    assert_eq!(data[512..1024], 10_u64.to_le_bytes().repeat(64));
    assert_eq!(data[1024], OK);

    // Header and data of a write in one buffer, by way of an indirect table.
    disk.header(OUT, 1);
    disk.put(HEADER + 16, &[0xcd; 512]);
    let mem = disk.guest.mem.clone();
    let mut table = disk.ring.clone();
    table.desc = DATA + 0x8000;
    table.set_descriptor(&mem, 0, (HEADER, 528, 1, 1));
    table.set_descriptor(&mem, 1, (IN_DATA, 1, 2, 0));
    disk.ring.set_descriptor(&mem, 0, (table.desc, 32, 4, 0));
    disk.ring.publish(&mem, 0);
    disk.guest.kick(0);
    assert_eq!(disk.guest.wait_used(&mut disk.ring), (0, 1));
    assert_eq!(disk.get(IN_DATA, 1), [OK]);
    assert_eq!(contents(&image)[512..1024], [0xcd; 512]);
}

#[test]
fn access_beyond_the_disk_is_an_error() {
    let image = image();
    let before = contents(&image);
    let mut disk = Disk::new(image.path(), options());
    for sector in [SECTORS, SECTORS - 1, 1 << 55, u64::MAX, u64::MAX - 1] {
        let (status, _, used) = disk.request(IN, sector, &[], 1024);
        assert_eq!((status, used), (IO_ERROR, 0), "sector {sector:#x}");
        assert_eq!(disk.status(OUT, sector, &[9; 1024]), IO_ERROR);
    }
    assert_eq!(disk.request(IN, 0, &[], 511).0, IO_ERROR);
    assert_eq!(disk.status(OUT, 0, &[9; 513]), IO_ERROR);
    for kind in [2, 3, 5, 9, 10, 12, 14, u32::MAX] {
        assert_eq!(disk.status(kind, 0, &[]), UNSUPPORTED, "type {kind}");
    }
    assert_eq!(contents(&image), before);
}

#[test]
fn a_request_without_a_status_byte_is_returned() {
    let image = image();
    let before = contents(&image);
    let mut disk = Disk::new(image.path(), options());
    disk.header(OUT, 0);
    let unanswerable: [&[(u64, u32, bool)]; 7] = [
        &[(HEADER, 16, false), (OUT_DATA, 512, false)],
        &[(HEADER, 15, false), (STATUS, 1, true)],
        &[(STATUS, 1, true)],
        &[(HEADER, 16, false), (STATUS, 0, true)],
        &[(STATUS, 1, true), (HEADER, 16, false)],
        &[(MEM as u64 - 8, 16, false), (STATUS, 1, true)],
        &[(u64::MAX, 16, false), (STATUS, 1, true)],
    ];
    for buffers in unanswerable {
        assert_eq!(disk.guest.request(&mut disk.ring, buffers), 0);
        assert_eq!(disk.get(STATUS, 1), [0xee], "{buffers:?}");
    }
    // A chain that bites its tail, and one that leaves the table.
    let mem = disk.guest.mem.clone();
    for next in [0, 32, u16::MAX] {
        disk.ring.set_descriptor(&mem, 0, (HEADER, 16, 1, 1));
        disk.ring.set_descriptor(&mem, 1, (OUT_DATA, 512, 1, 2));
        disk.ring.set_descriptor(&mem, 2, (STATUS, 1, 3, next));
        disk.ring.publish(&mem, 0);
        disk.guest.kick(0);
        assert_eq!(disk.guest.wait_used(&mut disk.ring), (0, 0));
    }
    assert_eq!(contents(&image), before, "half a request is none");
    assert_eq!(disk.guest.read(0x70), 15, "the ring itself is whole");
}

#[test]
fn buffers_outside_memory_are_an_error() {
    let image = image();
    let before = contents(&image);
    let mut disk = Disk::new(image.path(), options());
    for (kind, writable) in [(IN, true), (OUT, false)] {
        for at in [MEM as u64, MEM as u64 - 100, u64::MAX - 100, 0xd000_0000] {
            disk.header(kind, 0);
            let buffers = [(HEADER, 16, false), (at, 512, writable), (STATUS, 1, true)];
            disk.guest.request(&mut disk.ring, &buffers);
            assert_eq!(disk.get(STATUS, 1), [IO_ERROR], "at {at:#x}");
        }
    }
    assert_eq!(contents(&image), before);
}

#[test]
fn the_serial_number_is_returned() {
    let image = image();
    for (serial, told) in [
        ("", ""),
        ("abc", "abc"),
        ("12345678901234567890123", "12345678901234567890"),
    ] {
        let mut options = options();
        options.serial = serial.into();
        let mut disk = Disk::new(image.path(), options);
        let mut expected = [0; 20];
        expected[..told.len()].copy_from_slice(told.as_bytes());
        let (status, data, used) = disk.request(GET_ID, 0, &[], 20);
        assert_eq!((status, used), (OK, 21));
        assert_eq!(data, expected);
        let (status, data, used) = disk.request(GET_ID, 0, &[], 4);
        assert_eq!((status, used), (OK, 5));
        assert_eq!(data, expected[..4]);
        // The status is not next to what was written.
        assert_eq!(disk.request(GET_ID, 0, &[], 64).2, 20);
    }
}

#[test]
fn a_read_only_drive_refuses_writes() {
    let image = image();
    let before = contents(&image);
    let mut options = options();
    options.read_only = true;
    let mut disk = Disk::new(image.path(), options);
    assert!(disk.offers(VIRTIO_BLK_F_RO));
    assert!(!disk.offers(VIRTIO_BLK_F_DISCARD) && !disk.offers(VIRTIO_BLK_F_WRITE_ZEROES));
    assert_eq!(disk.status(OUT, 0, &[9; 512]), IO_ERROR);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(disk.status(kind, 0, &segment(0, 8, 0)), IO_ERROR);
    }
    assert_eq!(disk.read(1, 1), 1_u64.to_le_bytes().repeat(64));
    assert_eq!(disk.status(FLUSH, 0, &[]), OK);
    assert_eq!(contents(&image), before);
}

#[test]
fn a_flush_reaches_the_engine_once() {
    let image = image();
    let mut disk = Disk::new(image.path(), options());
    assert!(disk.offers(VIRTIO_BLK_F_FLUSH));
    disk.status(OUT, 0, &[1; 512]);
    assert_eq!(disk.flushes(), 0, "a write waits for the guest's flush");
    assert_eq!(disk.status(FLUSH, 0, &[]), OK);
    assert_eq!(disk.flushes(), 1);
}

#[test]
fn writes_are_durable_for_a_driver_without_flush() {
    let image = image();
    let mut disk = Disk::new(image.path(), options());
    disk.restart(disk.guest.offered() & !(1 << VIRTIO_BLK_F_FLUSH));
    assert_eq!(disk.status(OUT, 0, &[1; 512]), OK);
    assert_eq!(disk.flushes(), 1);
    assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(0, 8, 0)), OK);
    assert_eq!(disk.flushes(), 2);
    disk.read(0, 1);
    assert_eq!(disk.flushes(), 2);
}

#[test]
fn without_a_cache_type_there_is_no_flush() {
    let image = image();
    let mut options = options();
    options.flush = false;
    let mut disk = Disk::new(image.path(), options);
    assert!(!disk.offers(VIRTIO_BLK_F_FLUSH));
    assert_eq!(disk.status(OUT, 0, &[1; 512]), OK);
    assert_eq!(disk.flushes(), 0);
}

#[test]
fn discarded_sectors_use_no_space() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&vec![7; 1 << 20], 0).unwrap();
    let mut disk = Disk::new(image.path(), options());
    assert!(disk.offers(VIRTIO_BLK_F_DISCARD) && disk.offers(VIRTIO_BLK_F_WRITE_ZEROES));
    let blocks = || image.as_file().metadata().unwrap().blocks();
    let full = blocks();
    let mut segments = segment(0, 512, 0);
    segments.extend(segment(1024, 512, 0));
    assert_eq!(disk.status(DISCARD, 0, &segments), OK);
    assert!(blocks() <= full - 1024, "{} of {full} blocks", blocks());
    assert_eq!(disk.read(511, 2)[..512], [0; 512]);
    assert_eq!(disk.read(511, 2)[512..], [7; 512]);

    let before = blocks();
    assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(512, 256, 1)), OK);
    assert!(blocks() <= before - 256, "with UNMAP the space goes");
    assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(770, 3, 0)), OK);
    assert_eq!(disk.read(769, 5)[512..4 * 512], [0; 3 * 512]);
    assert_eq!(disk.read(769, 1), [7; 512]);
    assert_eq!(disk.read(773, 1), [7; 512]);
    assert_eq!(image.as_file().metadata().unwrap().len(), 1 << 20);
}

#[test]
fn discards_are_checked() {
    let image = image();
    let before = contents(&image);
    let mut disk = Disk::new(image.path(), options());
    for kind in [DISCARD, WRITE_ZEROES] {
        for out in [
            vec![],
            vec![0; 15],
            vec![0; 17],
            segment(0, 0, 0).repeat(17),
            segment(SECTORS, 1, 0),
            segment(SECTORS - 1, 2, 0),
            segment(u64::MAX, 1, 0),
            segment(0, u32::MAX, 0),
        ] {
            assert_eq!(disk.status(kind, 0, &out), IO_ERROR, "{kind}: {out:?}");
        }
        assert_eq!(disk.status(kind, 0, &segment(0, 8, 2)), UNSUPPORTED);
        // One bad segment, and none is done.
        let mixed = [segment(0, 8, 0), segment(SECTORS, 8, 0)].concat();
        assert_eq!(disk.status(kind, 0, &mixed), IO_ERROR);
        assert_eq!(disk.status(kind, 0, &segment(SECTORS, 0, 0)), OK);
    }
    assert_eq!(disk.status(DISCARD, 0, &segment(0, 8, 1)), UNSUPPORTED);
    drop(disk);
    let mut options = options();
    options.discard = false;
    let mut disk = Disk::new(image.path(), options);
    assert!(!disk.offers(VIRTIO_BLK_F_DISCARD));
    assert_eq!(disk.status(DISCARD, 0, &segment(0, 8, 0)), UNSUPPORTED);
    assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(0, 8, 0)), UNSUPPORTED);
    assert_eq!(contents(&image), before);
}

#[test]
fn the_configuration_has_the_capacity_and_the_limits() {
    let mut image = image();
    image.seek(io::SeekFrom::End(0)).unwrap();
    image.write_all(&[1; 100]).unwrap();
    let disk = Disk::new(image.path(), options());
    let register = |offset: u32| disk.guest.read(0x100 + offset);
    assert_eq!(u64::from(register(0)), SECTORS, "half a sector is none");
    assert_eq!(register(4), 0);
    assert_eq!(register(12), 254, "seg_max");
    assert_eq!(register(20), 512, "blk_size");
    assert_eq!((register(36), register(40)), (1 << 22, 16), "discard");
    assert_eq!((register(48), register(52)), (1 << 16, 16), "write zeroes");
}

#[test]
fn an_image_has_one_writer_or_several_readers() {
    let image = image();
    let open = |read_only| Backing::open(image.path(), read_only);
    let writer = open(false).unwrap();
    for read_only in [false, true] {
        let Err(e @ BackingError::InUse { .. }) = open(read_only) else {
            panic!("taken twice");
        };
        assert!(e.to_string().contains(image.path().to_str().unwrap()));
    }
    let clone = writer.try_clone().unwrap();
    drop(writer);
    assert!(open(false).is_err(), "the clone holds the lock");
    // A process's own lock would end here.
    drop(File::open(image.path()).unwrap());
    assert!(open(false).is_err());
    drop(clone);
    let reader = open(true).unwrap();
    let second = open(true).unwrap();
    assert!(matches!(open(false), Err(BackingError::InUse { .. })));
    drop((reader, second));
    open(false).unwrap();
}

#[test]
fn errors_name_the_file_that_is_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.img");
    let error = Backing::open(&missing, false).unwrap_err().to_string();
    assert!(error.contains("missing.img") && error.contains("truncate"));
    let Err(BackingError::Kind { path }) = Backing::open(dir.path(), true) else {
        panic!("a directory is no disk");
    };
    assert_eq!(path, dir.path());
    let null = Backing::open(Path::new("/dev/null"), false);
    assert!(matches!(null, Err(BackingError::Kind { .. })));
    let fifo = dir.path().join("fifo");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&fifo, mode).unwrap();
    assert!(Backing::open(&fifo, true).is_err(), "and does not hang");
}

#[test]
fn requests_beyond_a_truncated_image_fail() {
    let image = image();
    let mut disk = Disk::new(image.path(), options());
    image.as_file().set_len(512).unwrap();
    assert_eq!(disk.request(IN, 8, &[], 512).0, IO_ERROR);
    assert_eq!(disk.read(0, 1), 0_u64.to_le_bytes().repeat(64));
    assert_eq!(disk.guest.read(0x70), 15);
}

/// A sparse image of 1 MiB on a file system of 256 KiB; `None` without the privilege to mount one.
fn image_on_a_full_disk() -> Option<(Backing, File)> {
    use nix::mount::{MsFlags, mount};
    let make = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let dir = tempfile::tempdir().unwrap();
        let tmpfs = Some("tmpfs");
        mount(
            tmpfs,
            dir.path(),
            tmpfs,
            MsFlags::empty(),
            Some("size=256k"),
        )?;
        let path = dir.path().join("disk.img");
        let image = File::create_new(&path).unwrap();
        image.set_len(1 << 20).unwrap();
        let image = File::open(&path).unwrap();
        let backing = Backing::open(&path, false).unwrap();
        // The open files keep the file system, without a place in the tree.
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH)?;
        nix::Result::Ok((backing, image))
    };
    // The mount is seen by this thread alone.
    let made = std::thread::spawn(make).join().unwrap();
    match made {
        Ok(made) => Some(made),
        Err(nix::Error::EPERM) => None,
        Err(e) => panic!("cannot mount a tmpfs: {e}"),
    }
}

#[test]
fn a_write_to_a_full_host_disk_fails() {
    let Some((backing, mut image)) = image_on_a_full_disk() else {
        eprintln!("skipped: mounting a file system that can be filled takes root");
        return;
    };
    let mut disk = Disk::on(backing, options());
    let chunk = vec![5; 64 << 10];
    let statuses: Vec<u8> = (0..16).map(|n| disk.status(OUT, n * 128, &chunk)).collect();
    assert_eq!(statuses[0], OK);
    assert!(statuses.contains(&IO_ERROR), "{statuses:?}");
    assert_eq!(disk.guest.read(0x70), 15, "the disk goes on");
    assert_eq!(disk.read(0, 1), [5; 512]);
    assert_eq!(disk.status(FLUSH, 0, &[]), OK);
    // Room again.
    assert_eq!(disk.status(DISCARD, 0, &segment(0, 2048, 0)), OK);
    assert_eq!(disk.status(OUT, 2047, &[6; 512]), OK);
    let mut all = Vec::new();
    image.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 1 << 20);
    assert!(all[..2047 * 512].iter().all(|byte| *byte == 0));
    assert!(all[2047 * 512..].iter().all(|byte| *byte == 6));
}

#[test]
fn zeroes_are_written_where_the_file_system_cannot_zero_a_range() {
    let Some((backing, image)) = image_on_a_full_disk() else {
        eprintln!("skipped: mounting a file system of a known kind takes root");
        return;
    };
    let mut disk = Disk::on(backing, options());
    assert_eq!(disk.status(OUT, 0, &[5; 2048]), OK);
    // A tmpfs cannot zero a range.
    assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(1, 2, 0)), OK);
    let mut start = [0; 2048];
    image.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start[..512], [5; 512]);
    assert_eq!(start[512..1536], [0; 1024]);
    assert_eq!(start[1536..], [5; 512]);
}

//! A disk that loses power: an NBD server that keeps writes in memory until they are flushed. At a power cut it drops part of
//! the unflushed writes, sector by sector.
//!
//! It implements the part of the NBD protocol (fixed newstyle) that QEMU's client needs.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // IHAVEOPT
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const ANSWER_MAGIC: u32 = 0x6744_6698;
/// Export flags: has flags, supports FLUSH, supports forced unit access.
const EXPORT_FLAGS: u16 = 1 | 4 | 8;

/// Content of the disk and of its cache.
struct Contents {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Writes since the last flush: offset and length.
    unflushed: Vec<(usize, usize)>,
    flushes: u64,
}

/// The disk.
#[derive(Clone)]
pub struct VolatileDisk(Arc<Mutex<Contents>>);

impl VolatileDisk {
    /// Creates a disk with `contents`, served at the socket `path` until the process ends.
    pub fn serve(path: &Path, contents: Vec<u8>) -> Self {
        let disk = Self(Arc::new(Mutex::new(Contents {
            cached: contents.clone(),
            durable: contents,
            unflushed: Vec::new(),
            flushes: 0,
        })));
        let listener = UnixListener::bind(path).unwrap();
        let served = disk.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let disk = served.clone();
                // The end of the client's connection is the power cut.
                std::thread::spawn(move || client.and_then(|client| disk.talk(client)));
            }
        });
        disk
    }

    /// Returns the number of flushes so far.
    pub fn flushes(&self) -> u64 {
        self.0.lock().unwrap().flushes
    }

    /// Returns the content after a power cut: everything that was flushed, and for each other sector either version, chosen by
    /// `seed`.
    pub fn cut_power(&self, mut seed: u64) -> Vec<u8> {
        let contents = self.0.lock().unwrap();
        let mut left = contents.durable.clone();
        for (offset, len) in &contents.unflushed {
            for at in (*offset..offset + len).step_by(SECTOR) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if seed >> 63 == 1 {
                    let end = (at + SECTOR).min(offset + len);
                    left[at..end].copy_from_slice(&contents.cached[at..end]);
                }
            }
        }
        left
    }

    /// Writes like a client.
    pub fn write(&self, offset: usize, data: &[u8]) {
        self.execute(1, 0, offset, data.len(), data);
    }

    /// Flushes like a client.
    pub fn flush(&self) {
        self.execute(3, 0, 0, 0, &[]);
    }

    fn talk(&self, mut client: UnixStream) -> io::Result<()> {
        client.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
        let _client_flags = word(&mut client)?;
        self.negotiate(&mut client)?;
        loop {
            assert_eq!(word(&mut client)?, REQUEST_MAGIC);
            let (flags, kind) = (half(&mut client)?, half(&mut client)?);
            let handle = long(&mut client)?;
            let offset = usize::try_from(long(&mut client)?).unwrap();
            let len = word(&mut client)? as usize;
            let data = match kind {
                1 => bytes(&mut client, len)?,
                2 => return Ok(()),
                _ => Vec::new(),
            };
            let answer = self.execute(kind, flags, offset, len, &data);
            client.write_all(&ANSWER_MAGIC.to_be_bytes())?;
            client.write_all(&0_u32.to_be_bytes())?;
            client.write_all(&handle.to_be_bytes())?;
            client.write_all(&answer)?;
        }
    }

    fn execute(&self, kind: u16, flags: u16, offset: usize, len: usize, data: &[u8]) -> Vec<u8> {
        let mut contents = self.0.lock().unwrap();
        match kind {
            0 => return contents.cached[offset..offset + len].to_vec(),
            1 => {
                contents.cached[offset..offset + len].copy_from_slice(data);
                contents.unflushed.push((offset, len));
            }
            3 => contents.flushes += 1,
            other => panic!("an NBD request of kind {other}, which was not offered"),
        }
        let forced = kind == 1 && flags & 1 == 1;
        if forced {
            contents.unflushed.pop();
            contents.durable[offset..offset + len].copy_from_slice(data);
        }
        if kind == 3 {
            for (offset, len) in std::mem::take(&mut contents.unflushed) {
                let Contents {
                    durable, cached, ..
                } = &mut *contents;
                durable[offset..offset + len].copy_from_slice(&cached[offset..offset + len]);
            }
        }
        Vec::new()
    }

    /// Answers options until the client has selected the export.
    fn negotiate(&self, client: &mut UnixStream) -> io::Result<()> {
        let size = self.0.lock().unwrap().cached.len() as u64;
        loop {
            assert_eq!(long(client)?, OPTION_MAGIC);
            let option = word(client)?;
            let len = word(client)?;
            bytes(client, len as usize)?;
            let mut reply = |kind: u32, data: &[u8]| {
                client.write_all(&REPLY_MAGIC.to_be_bytes())?;
                client.write_all(&option.to_be_bytes())?;
                client.write_all(&kind.to_be_bytes())?;
                client.write_all(&u32::try_from(data.len()).unwrap().to_be_bytes())?;
                client.write_all(data)
            };
            // NBD_OPT_GO and NBD_OPT_INFO: send the size, then an acknowledgement.
            if option == 7 || option == 6 {
                let mut info = 0_u16.to_be_bytes().to_vec();
                info.extend(size.to_be_bytes());
                info.extend(EXPORT_FLAGS.to_be_bytes());
                reply(3, &info)?;
                reply(1, &[])?;
                if option == 7 {
                    return Ok(());
                }
            } else {
                // NBD_REP_ERR_UNSUP: the client proceeds without the option.
                reply(0x8000_0001, &[])?;
            }
        }
    }
}

fn bytes(client: &mut UnixStream, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn half(client: &mut UnixStream) -> io::Result<u16> {
    let mut bytes = [0; 2];
    client.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn word(client: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    client.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn long(client: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    client.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

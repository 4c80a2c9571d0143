//! `make bench`: measures Bantam side by side with the other monitors of this machine.
//!
//! run.sh builds and starts this program. It prints tables and writes them, with a chart, to a directory. It reports
//! figures and never fails because of one.
//!
//! | file | subject |
//! |---|---|
//! | `monitors` | the monitors of this machine, and their command lines for the same guest |
//! | `payload` | kernels that signal their first instruction |
//! | `process` | runs a monitor with a time limit |
//! | `startup` | exec to first guest instruction |
//! | `connect` | exec to an API that accepts |
//! | `jailer` | time and system calls of the jailer |
//! | `exits` | returns from the guest during a boot, on real KVM |
//! | `memory` | resident memory and binary size |
//! | `restore` `floor` | from a snapshot to a running guest, and the least that the kernel needs for it |
//! | `touch` | first touch of a restored guest's memory |
//! | `fork` | forks of a running guest |
//! | `api` | requests to a monitor |
//! | `report` `chart` | tables and the chart |

mod api;
mod chart;
mod connect;
mod exits;
mod floor;
mod fork;
mod jailer;
mod memory;
mod monitors;
mod payload;
mod process;
mod report;
mod restore;
mod startup;
mod touch;

use monitors::Monitor;
use report::Table;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The reason why something could not be measured.
pub type Failure = Box<dyn std::error::Error>;

/// The subjects to measure.
const SUBJECTS: [&str; 8] = [
    "startup", "connect", "restore", "fork", "jailer", "exits", "memory", "size",
];

const USAGE: &str = "\
usage: tests/bench/run.sh [OPTION]...

  --out DIR        where the report goes (target/bench)
  --rounds N       interleaved rounds of what is timed (30)
  --boots N        boots of each monitor whose exits are counted (1)
  --only SUBJECTS  of startup,connect,restore,fork,jailer,exits,memory,size

Peers: QEMU, FIRECRACKER and CLOUD_HYPERVISOR name their programs, else PATH is searched.
BANTAM names the monitor itself.";

struct Options {
    out: PathBuf,
    rounds: usize,
    boots: usize,
    subjects: Vec<String>,
    /// True in the process that runs on the KVM host.
    on_kvm_host: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            out: project().join("target/bench"),
            rounds: 30,
            boots: 1,
            subjects: SUBJECTS.map(str::to_owned).to_vec(),
            on_kvm_host: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--out" => options.out = value()?.into(),
                "--rounds" => options.rounds = value()?.parse()?,
                "--boots" => options.boots = value()?.parse()?,
                "--only" => options.subjects = value()?.split(',').map(str::to_owned).collect(),
                "--count-exits-here" => options.on_kvm_host = true,
                // Cargo passes this to a test harness.
                "--bench" => {}
                _ => return Err(format!("unknown option {argument}\n{USAGE}").into()),
            }
        }
        if let Some(bad) = options
            .subjects
            .iter()
            .find(|s| !SUBJECTS.contains(&s.as_str()))
        {
            return Err(format!("cannot measure {bad}\n{USAGE}").into());
        }
        if options.rounds == 0 || options.boots == 0 {
            return Err("--rounds and --boots count from 1".into());
        }
        Ok(options)
    }

    fn wants(&self, subject: &str) -> bool {
        self.subjects.iter().any(|s| s == subject)
    }
}

/// Returns the top directory of the checkout.
pub fn project() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    top.unwrap_or(Path::new(".")).to_owned()
}

/// Returns the path of a file of the guest image.
pub fn image(name: &str) -> Result<PathBuf, Failure> {
    let dir = std::env::var_os("BANTAM_GUEST_DIR")
        .map_or_else(|| project().join("target/guest"), PathBuf::from);
    let path = dir.join(name);
    if !path.exists() {
        return Err(format!("{} is missing: run `make guest`", path.display()).into());
    }
    Ok(path)
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let monitors = monitors::find()?;
    if options.on_kvm_host {
        return exits::count_here(&monitors, options.boots);
    }
    fs::create_dir_all(&options.out)?;
    let out = options.out.canonicalize()?;
    let tables = measure(options, &monitors, &out)?;
    let about = about(&monitors);
    for table in &tables {
        println!("\n{}", table.text());
    }
    println!("\n{about}");
    fs::write(out.join("report.md"), report::markdown(&tables, &about))?;
    fs::write(out.join("report.svg"), chart::svg(&tables))?;
    println!("report: {}", out.join("report.md").display());
    Ok(())
}

fn measure(options: &Options, monitors: &[Monitor], out: &Path) -> Result<Vec<Table>, Failure> {
    let mut tables = Vec::new();
    if options.wants("startup") {
        tables.extend(startup::measure(monitors, options.rounds, out)?);
    }
    if options.wants("connect") {
        tables.push(connect::measure(monitors, options.rounds, out));
    }
    if options.wants("restore") {
        tables.extend(restore::measure(monitors, options.rounds, out)?);
        tables.extend(touch::measure(monitors, out)?);
    }
    if options.wants("fork") {
        tables.extend(fork::measure(monitors, out)?);
    }
    if options.wants("jailer") {
        tables.extend(jailer::measure(monitors, options.rounds, out));
    }
    if options.wants("exits") {
        tables.push(exits::measure(monitors, options.boots, out)?);
    }
    if options.wants("memory") {
        tables.push(memory::resident(monitors, out)?);
    }
    if options.wants("size") {
        tables.push(memory::binaries(monitors, out)?);
    }
    Ok(tables)
}

/// Describes the host and the monitors.
fn about(monitors: &[Monitor]) -> String {
    let mut lines = vec![format!("Host: {}", host())];
    for monitor in monitors {
        lines.push(format!("{}: {}", monitor.name, monitor.version()));
    }
    lines.join("\n")
}

fn host() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("", |(_, value)| value)
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let virtualization = field("flags")
        .split(' ')
        .find(|flag| matches!(*flag, "svm" | "vmx"))
        .unwrap_or("neither svm nor vmx: KVM interprets guests here");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("model name");
    format!(
        "Linux {}, {cpus} CPUs ({model}), {virtualization}",
        release.trim()
    )
}

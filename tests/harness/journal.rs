//! A guest that writes files and reports which are synced, and the check that these exist.

use super::sh;
use std::path::Path;

/// Script that appends numbered files for ever and reports each when it is synced.
pub const WRITER: &str = r"
mkdir -p /run/mnt && mount /dev/disk/by-id/virtio-data /run/mnt || exit 9
n=$(ls /run/mnt | grep -c ^file)
echo start=$n
while :; do
    n=$((n + 1))
    echo contents of $n | dd of=/run/mnt/file$n conv=fsync 2>/dev/null && echo kept=$n || exit 9
done
";

/// Returns the files that `console` reports as synced.
pub fn kept(console: &str) -> Vec<u64> {
    let lines = console
        .lines()
        .filter(|line| line.ends_with(|c: char| c.is_ascii_digit()));
    lines
        .filter_map(|line| line.trim_end().strip_prefix("kept=")?.parse().ok())
        .collect()
}

/// Fails unless every file that `console` reports is in `image` with its contents after a journal replay, and `e2fsck`
/// finds nothing else to repair.
pub fn check(image: &Path, console: &str) {
    let image = image.display();
    // Status 1: errors were corrected, such as a replayed journal and orphans.
    sh(&format!("e2fsck -p {image} >/dev/null || [ $? -le 1 ]"));
    sh(&format!("e2fsck -fn {image}"));
    for n in kept(console) {
        let contents = sh(&format!("debugfs -R 'cat file{n}' {image} 2>/dev/null"));
        assert_eq!(
            contents,
            format!("contents of {n}\n"),
            "file{n} was kept and is lost"
        );
    }
}

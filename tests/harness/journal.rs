//! A guest that writes files and says which are kept, and the check that they are.

use super::sh;
use std::path::Path;

/// Appends numbered files for ever, each said to be kept once it is.
pub const WRITER: &str = r"
mkdir -p /run/mnt && mount /dev/disk/by-id/virtio-data /run/mnt || exit 9
n=$(ls /run/mnt | grep -c ^file)
echo start=$n
while :; do
    n=$((n + 1))
    echo contents of $n | dd of=/run/mnt/file$n conv=fsync 2>/dev/null && echo kept=$n || exit 9
done
";

/// How many files `console` says are kept.
pub fn kept(console: &str) -> Vec<u64> {
    let lines = console
        .lines()
        .filter(|line| line.ends_with(|c: char| c.is_ascii_digit()));
    lines
        .filter_map(|line| line.trim_end().strip_prefix("kept=")?.parse().ok())
        .collect()
}

/// Fails unless every file `console` says is kept is in `image` with its contents, after the journal was
/// replayed, and `e2fsck` finds nothing else to mend.
pub fn check(image: &Path, console: &str) {
    let image = image.display();
    // 1: errors corrected, as a replayed journal and orphans are.
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

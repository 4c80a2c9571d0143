//! Results as tables, for the terminal and for a page.

/// A target.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// A share of the best peer's median in the same run.
    ShareOfBestPeer(f64),
    /// A value in the table's unit.
    AtMost(f64),
    /// A difference to the yardstick's median, in the table's unit.
    OverYardstick(f64),
}

/// One measure of all monitors, with Bantam first; or of Bantam in several cases.
#[derive(Debug)]
pub struct Table {
    pub title: String,
    pub unit: &'static str,
    /// Method of measurement.
    pub note: String,
    pub entries: Vec<Entry>,
    /// True if the entries are cases of Bantam instead of peers. A target applies to each.
    pub cases: bool,
    pub aims: Vec<Aim>,
}

/// Samples of a monitor.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub remark: String,
    samples: Vec<f64>,
    out: bool,
    /// True if it is not a monitor.
    yardstick: bool,
}

impl Entry {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            remark: String::new(),
            samples: Vec::new(),
            out: false,
            yardstick: false,
        }
    }

    /// Creates an entry for comparison that is no peer.
    pub fn yardstick(name: &'static str) -> Self {
        Self {
            yardstick: true,
            ..Self::new(name)
        }
    }

    pub fn add(&mut self, sample: f64) {
        self.samples.push(sample);
        self.samples.sort_by(f64::total_cmp);
    }

    /// Records why there are no samples.
    pub fn leave_out(&mut self, why: &str) {
        self.out = true;
        self.remark = why.to_owned();
        self.samples.clear();
    }

    pub fn is_out(&self) -> bool {
        self.out
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    pub fn median(&self) -> Option<f64> {
        let upper = self.samples.get(self.samples.len() / 2)?;
        let lower = self.samples.get((self.samples.len() - 1) / 2)?;
        Some((lower + upper) / 2.0)
    }

    /// Returns the 10th and 90th percentile.
    fn spread(&self) -> Option<(f64, f64)> {
        let tenth = self.samples.len() / 10;
        let last = self.samples.len().checked_sub(tenth + 1)?;
        Some((*self.samples.get(tenth)?, *self.samples.get(last)?))
    }
}

const HEADINGS: [&str; 5] = ["", "median", "10 % to 90 %", "to the best peer", ""];

impl Table {
    fn best_peer(&self) -> Option<f64> {
        let peers = self.entries.iter().skip(1);
        let peers = peers.filter(|entry| !entry.yardstick && !self.cases);
        let peers = peers.filter_map(Entry::median);
        peers.min_by(f64::total_cmp)
    }

    fn rows(&self) -> Vec<[String; 5]> {
        let best = self.best_peer();
        let row = |entry: &Entry| {
            let median = entry.median();
            let ratio = median.zip(best).filter(|(_, best)| *best > 0.0);
            [
                entry.name.to_owned(),
                median.map_or("-".into(), |m| format!("{} {}", figure(m), self.unit)),
                entry
                    .spread()
                    .filter(|(low, high)| low != high)
                    .map_or(String::new(), |(low, high)| {
                        format!("{} to {}", figure(low), figure(high))
                    }),
                ratio.map_or(String::new(), |(median, best)| ratio_of(median / best)),
                entry.remark.clone(),
            ]
        };
        self.entries.iter().map(row).collect()
    }

    /// Returns the targets with whether they were met. A target without its reference is left out.
    fn verdicts(&self) -> Vec<String> {
        let ours = if self.cases { self.entries.len() } else { 1 };
        let ours: Vec<_> = self.entries.iter().take(ours).map(Entry::median).collect();
        let verdict = |aim: &Aim| {
            let (aim, most) = match *aim {
                Aim::AtMost(most) => (format!("at most {} {}", figure(most), self.unit), most),
                Aim::ShareOfBestPeer(share) => (
                    format!("at most {share} of the best peer"),
                    share * self.best_peer()?,
                ),
                Aim::OverYardstick(more) => {
                    let yardstick = self.entries.iter().find(|entry| entry.yardstick)?;
                    (
                        format!(
                            "at most {} {} more than {}",
                            figure(more),
                            self.unit,
                            yardstick.name
                        ),
                        yardstick.median()? + more,
                    )
                }
            };
            let met = ours
                .iter()
                .all(|median| median.is_some_and(|median| median <= most));
            let verdict = if met { "met" } else { "not met" };
            Some(format!("Aim: {aim}: {verdict}."))
        };
        self.aims.iter().filter_map(verdict).collect()
    }

    /// Returns the table for the terminal.
    pub fn text(&self) -> String {
        let mut lines = vec![self.title.clone()];
        for row in std::iter::once(HEADINGS.map(str::to_owned)).chain(self.rows()) {
            let [name, median, spread, ratio, remark] = row;
            let line = format!("  {name:<18}{median:>16}{spread:>20}{ratio:>18}  {remark}");
            lines.push(line.trim_end().to_owned());
        }
        lines.extend(self.verdicts().iter().map(|verdict| format!("  {verdict}")));
        lines.join("\n")
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        text += &format!("| {} |\n|---|--:|--:|--:|---|\n", HEADINGS.join(" | "));
        for row in self.rows() {
            text += &format!(
                "| {} |\n",
                row.map(|cell| cell.replace('|', "/")).join(" | ")
            );
        }
        text += &format!("\nMeasured: {}.\n", self.note);
        for verdict in self.verdicts() {
            text += &format!("\n{verdict}\n");
        }
        text
    }
}

/// Returns all tables as a page.
pub fn markdown(tables: &[Table], about: &str) -> String {
    let mut text = "# Bantam and its peers\n\n![chart](report.svg)\n\n".to_owned();
    for line in about.lines() {
        text += &format!("- {line}\n");
    }
    for table in tables {
        text += &format!("\n{}", table.markdown());
    }
    text
}

/// Formats a ratio.
fn ratio_of(ratio: f64) -> String {
    match ratio {
        r if r >= 0.1 => format!("{r:.2}"),
        r => format!("{r:.4}"),
    }
}

/// Formats a number with three digits, or all digits before the point.
pub fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

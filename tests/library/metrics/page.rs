//! A strict parser for a scraped page.

use std::collections::{BTreeMap, BTreeSet};

/// A page in text format 0.0.4.
pub struct Page {
    /// The type of each family.
    pub families: BTreeMap<String, String>,
    /// Each series with its labels in textual form, and its value.
    pub series: BTreeMap<String, f64>,
}

impl Page {
    /// Parses the page. Panics on any violation of the format.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let mut page = Page {
            families: BTreeMap::new(),
            series: BTreeMap::new(),
        };
        let mut helped = BTreeSet::new();
        assert!(text.ends_with('\n'), "the last line is not ended");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty());
                assert!(helped.insert(name.to_owned()), "{name} has two helps");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(helped.contains(name), "{name} has no help");
                let former = page.families.insert(name.into(), kind.into());
                assert_eq!(former, None, "{name} is there twice");
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value = match value {
                    "+Inf" => f64::INFINITY,
                    value => value.parse().expect("a number"),
                };
                assert!(page.family_of(series).is_some(), "{series} has no type");
                let former = page.series.insert(series.into(), value);
                assert_eq!(former, None, "{series} is there twice");
            }
        }
        page
    }

    /// Returns the family of a series or of a name in a query.
    pub fn family_of(&self, series: &str) -> Option<&str> {
        let name = series.split('{').next()?;
        let histogram = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        [Some(name), histogram]
            .into_iter()
            .flatten()
            .find_map(|name| self.families.get_key_value(name))
            .map(|(name, _)| name.as_str())
    }

    /// Returns the sum of all series of this name with all these labels.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let wanted = |series: &str| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| rest.contains(label))
        };
        let found = self.series.iter().filter(|(series, _)| wanted(series));
        found.map(|(_, value)| value).sum()
    }

    /// Returns every series that must never decrease: counters and parts of histograms.
    pub fn rising(&self) -> impl Iterator<Item = (&String, f64)> {
        self.series.iter().filter_map(|(series, value)| {
            let kind = &self.families[self.family_of(series)?];
            (kind != "gauge").then_some((series, *value))
        })
    }

    /// Checks that buckets are cumulative and the last one equals the count.
    #[track_caller]
    pub fn assert_consistent(&self) {
        for (name, kind) in &self.families {
            if kind != "histogram" {
                continue;
            }
            let counts = self.series.iter().filter_map(|(series, count)| {
                let labels = series.strip_prefix(name)?.strip_prefix("_count")?;
                Some((labels, *count))
            });
            for (labels, count) in counts {
                let inner = labels.trim_matches(['{', '}']);
                let mut buckets: Vec<(f64, f64)> = self
                    .series
                    .iter()
                    .filter(|(s, _)| s.starts_with(&format!("{name}_bucket{{{inner}")))
                    .map(|(series, value)| {
                        let bound = series.split("le=\"").nth(1).expect("a bound");
                        let bound = bound.split('"').next().expect("its end");
                        let bound = bound.replace("+Inf", "inf");
                        (bound.parse().expect("a number"), *value)
                    })
                    .collect();
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(
                    buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
                    "{name}{labels}: {buckets:?}"
                );
                let last = buckets.last().expect("a bucket").1;
                assert_eq!(last, count, "{name}{labels}");
            }
        }
    }
}

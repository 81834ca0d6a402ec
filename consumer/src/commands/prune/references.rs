//! The folders that playlists, manifests and reports name.

use std::collections::BTreeSet;

use vidstreamx_job::{JobId, Outcome, Report};

/// Digits of a job id.
const DIGITS: usize = 32;

/// Folders of jobs, and of plans within them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct References {
    jobs: BTreeSet<JobId>,
    plans: BTreeSet<(JobId, String)>,
}

impl References {
    /// Adds all folders that a playlist or manifest names: `<job id>/<plan id>/`.
    pub(super) fn add_text(&mut self, text: &str) {
        for (at, _) in text.match_indices('/') {
            let start = at.checked_sub(DIGITS);
            let Some(job) = start.and_then(|start| text.get(start..at)).and_then(|job| job.parse().ok())
            else {
                continue;
            };
            self.add(job, text.get(at + 1..).unwrap_or_default());
        }
    }

    /// Adds the folder of the report at a stable address. The report of a rejected upload names no stream in
    /// use. One that cannot be read is searched as text.
    pub(super) fn add_report(&mut self, json: &[u8]) {
        match Report::parse(json) {
            Ok(report) if report.outcome == Outcome::Complete => {
                let folder = report.folder.unwrap_or_default();
                let plan = folder.strip_prefix(&format!("{}/", report.job_id)).unwrap_or_default();
                self.add(report.job_id.clone(), &format!("{plan}/"));
            }
            Ok(_) => {}
            Err(_) => self.add_text(&String::from_utf8_lossy(json)),
        }
    }

    fn add(&mut self, job: JobId, rest: &str) {
        if let Some((plan, _)) = rest.split_once('/') {
            self.plans.insert((job.clone(), plan.to_owned()));
        }
        self.jobs.insert(job);
    }

    /// The jobs whose folders are named.
    #[must_use]
    pub(super) const fn jobs(&self) -> &BTreeSet<JobId> {
        &self.jobs
    }

    /// Whether the folder of a plan is named.
    #[must_use]
    pub(super) fn names_plan(&self, job: &JobId, plan: &str) -> bool {
        self.plans.contains(&(job.clone(), plan.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::report;

    fn jobs(text: &str) -> Vec<String> {
        let mut references = References::default();
        references.add_text(text);
        references.jobs().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn playlists_and_manifests_name_jobs_and_plans() {
        let (one, other) = ("0123456789abcdef0123456789abcdef", "f".repeat(32));
        let mut references = References::default();
        references.add_text(&format!("#EXTM3U\n{one}/p1/video/720p/index.m3u8\n"));
        references.add_text(&format!("<SegmentTemplate media=\"{other}/p2/video/seg-$Number%05d$.m4s\"/>"));
        assert_eq!(references.jobs().len(), 2);
        assert!(references.names_plan(&one.parse().unwrap(), "p1"));
        assert!(references.names_plan(&other.parse().unwrap(), "p2"));
        assert!(!references.names_plan(&one.parse().unwrap(), "p2"));
        assert!(jobs("é/ab/0123/").is_empty());
    }

    #[test]
    fn only_a_complete_report_names_a_stream() {
        let json = |outcome| {
            let report =
                Report { folder: Some("0123456789abcdef0123456789abcdef/p".into()), ..report(outcome) };
            serde_json::to_vec(&report).unwrap()
        };
        let mut references = References::default();
        references.add_report(&json(Outcome::Rejected));
        assert!(references.jobs().is_empty());
        references.add_report(&json(Outcome::Complete));
        assert!(references.names_plan(&"0123456789abcdef0123456789abcdef".parse().unwrap(), "p"));
        let mut newer = References::default();
        newer.add_report(br#"{"schema": 9, "folder": "0123456789abcdef0123456789abcdef/p"}"#);
        assert_eq!(newer.jobs().len(), 1);
    }

    proptest! {
        #[test]
        fn a_named_job_is_found_in_any_text(before in "\\PC{0,40}", job in "[0-9a-f]{32}", after in "\\PC{0,40}") {
            let text = format!("{before}{job}/{after}");
            prop_assert!(jobs(&text).contains(&job));
        }
    }
}

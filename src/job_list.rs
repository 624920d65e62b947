//! The `job_list` answer, with the jobs that the wallet holds, some of them for other clients
//! (protocol §6).

use bytes::Bytes;

use crate::{json::JsonText, types::Slug};

/// The fields of a job that its holder shares with all. Others may hold its instructions, its reservation
/// or its proof.
const PUBLIC: [&str; 6] =
    ["job_id", "title", "public_description", "reward_credits", "status", "job_type"];

/// Where the jobs may stand in an answer.
const PLACES: [&[&str]; 4] = [&["jobs"], &[], &["data"], &["data", "jobs"]];

/// The ids of the jobs in an answer.
pub(crate) fn ids(answer: &[u8]) -> Vec<Slug> {
    let jobs = JsonText::parse(answer).map(jobs).unwrap_or_default();
    jobs.into_iter().filter_map(id).collect()
}

/// The answer with only the public fields of these jobs, if any of them is in it.
pub(crate) fn with_public_fields_of(answer: &[u8], held: &[Slug]) -> Option<Bytes> {
    let json = JsonText::parse(answer)?;
    let is_held = |job: &JsonText<'_>| {
        id(*job).is_some_and(|id| held.iter().any(|held| held.is_same(id.as_str())))
    };
    let held = jobs(json).into_iter().filter(is_held);
    let (mut out, mut done) = (Vec::with_capacity(answer.len()), 0);
    for job in held {
        let start = job.as_str().as_ptr() as usize - answer.as_ptr() as usize;
        out.extend_from_slice(&answer[done..start]);
        out.extend_from_slice(public(job).as_bytes());
        done = start + job.as_str().len();
    }
    out.extend_from_slice(&answer[done..]);
    (done > 0).then(|| out.into())
}

fn jobs(answer: JsonText<'_>) -> Vec<JsonText<'_>> {
    PLACES.iter().filter_map(|place| answer.at(place)).flat_map(JsonText::items).collect()
}

fn id(job: JsonText<'_>) -> Option<Slug> {
    let id = job.field("job_id").or_else(|| job.at(&["job", "job_id"]));
    id?.text()?.parse().ok()
}

fn public(job: JsonText<'_>) -> String {
    let field = |name: &&str| Some(format!("\"{name}\":{}", job.field(name)?.as_str()));
    let fields: Vec<_> = PUBLIC.iter().filter_map(field).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_held_job_only_the_public_fields_stay_and_the_rest_of_the_list_is_as_it_was() {
        let held = ["AB1".parse().unwrap(), "c-3".parse().unwrap()];
        let secret = r#""job_instructions":"secret","workflow_access":{"x":1},"link":"secret""#;
        let public = r#""job_id":"ab1","title":"\u0061","reward_credits": 5.0"#;
        let job = format!("{{{public},{secret}}}");
        let own = format!(r#"{{"job_id":"b-2",{secret}}}"#);
        let nested = format!(r#"{{"job":{{"job_id":"c-3",{secret}}},{secret}}}"#);
        let shared = r#"{"job_id":"ab1","title":"\u0061","reward_credits":5.0}"#;
        for (list, after) in [
            (
                format!(r#" {{"limit": 1, "jobs":[ {job}, {own},{nested}] }}"#),
                format!(r#" {{"limit": 1, "jobs":[ {shared}, {own},{{}}] }}"#),
            ),
            (format!("[{job}]"), format!("[{shared}]")),
            (format!(r#"{{"data":[{job}]}}"#), format!(r#"{{"data":[{shared}]}}"#)),
            (
                format!(r#"{{"data":{{"jobs":[{job}]}}}}"#),
                format!(r#"{{"data":{{"jobs":[{shared}]}}}}"#),
            ),
        ] {
            let shown = with_public_fields_of(list.as_bytes(), &held).unwrap();
            assert_eq!(shown, after.as_bytes(), "{list}");
        }
        let other = format!(r#"{{"jobs":[{own}]}}"#);
        assert!(with_public_fields_of(other.as_bytes(), &held).is_none());
    }

    #[test]
    fn the_ids_of_a_list_are_those_of_its_jobs() {
        let list =
            br#"{"jobs":[{"job_id":"a"},{"title":"b"},{"job_id":5},{"job":{"job_id":"c"}}]}"#;
        let found = ids(list);
        assert_eq!(found.iter().map(Slug::as_str).collect::<Vec<_>>(), ["a", "c"]);
        for body in ["", "{}", "<html>", r#"{"jobs":{"job_id":"a"}}"#] {
            assert!(ids(body.as_bytes()).is_empty(), "{body}");
        }
    }
}

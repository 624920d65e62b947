//! The `job_list` answer, with the jobs that the wallet holds, some of them for other clients
//! (protocol §6). Its form is not promised, so a job is looked for in every object of it.

use bytes::Bytes;

use crate::{
    json::{JsonText, NamedValue},
    types::Slug,
};

/// The fields of a job that its holder shares with all. Others may hold its instructions, its reservation
/// or its proof.
const PUBLIC: [&str; 6] =
    ["job_id", "title", "public_description", "reward_credits", "status", "job_type"];

/// The names of an id, in lower case and without `_`.
const ID_NAMES: [&str; 2] = ["jobid", "id"];

/// An answer of more levels cannot be read: each level is a walk over it.
const MAX_DEPTH: usize = 32;

/// An object of an answer.
struct Listed<'a> {
    json: JsonText<'a>,
    /// The jobs that it may be about.
    ids: Vec<Slug>,
}

/// The ids of the jobs in an answer; `None` if it cannot be read.
pub(crate) fn ids(answer: &[u8]) -> Option<Vec<Slug>> {
    // An answer without a body tells nothing.
    if answer.is_empty() {
        return Some(Vec::new());
    }
    Some(objects(answer)?.into_iter().flat_map(|object| object.ids).collect())
}

/// The answer with only the public fields of these jobs, if any of them is in it.
pub(crate) fn with_public_fields_of(answer: &[u8], held: &[Slug]) -> Option<Bytes> {
    let is_held = |object: &Listed<'_>| {
        object.ids.iter().any(|id| held.iter().any(|held| held.is_same(id.as_str())))
    };
    let (mut out, mut done) = (Vec::with_capacity(answer.len()), 0);
    for Listed { json, .. } in objects(answer)?.into_iter().filter(is_held) {
        let start = json.as_str().as_ptr() as usize - answer.as_ptr() as usize;
        // One within another is left out with it.
        if start >= done {
            out.extend_from_slice(&answer[done..start]);
            out.extend_from_slice(public(json).as_bytes());
            done = start + json.as_str().len();
        }
    }
    out.extend_from_slice(&answer[done..]);
    (done > 0).then(|| out.into())
}

/// Every object of an answer that has an id, in the order in which they begin.
fn objects(answer: &[u8]) -> Option<Vec<Listed<'_>>> {
    let mut found = Vec::new();
    collect(JsonText::parse(answer)?, MAX_DEPTH, &mut found)?;
    Some(found)
}

fn collect<'a>(json: JsonText<'a>, depth: usize, found: &mut Vec<Listed<'a>>) -> Option<()> {
    if !json.as_str().starts_with(['{', '[']) {
        return Some(());
    }
    let depth = depth.checked_sub(1)?;
    if json.as_str().starts_with('{') {
        // The instructions may stand beside the job that they are of.
        let job = json.field("job").into_iter().flat_map(ids_of);
        let ids: Vec<_> = ids_of(json).chain(job).collect();
        found.extend((!ids.is_empty()).then_some(Listed { json, ids }));
    }
    let values = json.fields().map(|(_, value)| value);
    values.chain(json.items()).try_for_each(|value| collect(value, depth, found))
}

/// The ids of an object: strings, numbers, or what is within an object, as in `{"$oid": "…"}`.
fn ids_of(object: JsonText<'_>) -> impl Iterator<Item = Slug> {
    let is_id = |literal: JsonText<'_>| {
        let name = literal.text().unwrap_or_default().replace('_', "").to_lowercase();
        ID_NAMES.contains(&name.as_str())
    };
    let values = object.fields().filter(move |(name, _)| is_id(*name)).map(|(_, value)| value);
    values.flat_map(|value| NamedValue::Json(value).texts()).filter_map(|id| id.parse().ok())
}

/// A public field that is an object or an array is none that is known.
fn public(job: JsonText<'_>) -> String {
    let is_plain = |value: &JsonText<'_>| !value.as_str().starts_with(['{', '[']);
    let field = |name: &&str| {
        let value = job.field(name).filter(is_plain)?;
        Some(format!("\"{name}\":{}", value.as_str()))
    };
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
            (
                format!(r#"{{"data":[{job}],"jobs":[{job}]}}"#),
                format!(r#"{{"data":[{shared}],"jobs":[{shared}]}}"#),
            ),
            (
                format!(r#"{{"x":{{"reserved_jobs":[[{job}]]}},"items":{{"a":{job}}}}}"#),
                format!(r#"{{"x":{{"reserved_jobs":[[{shared}]]}},"items":{{"a":{shared}}}}}"#),
            ),
            (format!(r#"[{{"id":"ab1",{secret}}}]"#), "[{}]".into()),
            (
                format!(r#"[{{"_id":{{"$oid":"ab1"}},"title":"a",{secret}}}]"#),
                r#"[{"title":"a"}]"#.into(),
            ),
            (
                format!(r#"[{{"jobId":"ab1","job_id":"b-2",{secret}}}]"#),
                r#"[{"job_id":"b-2"}]"#.into(),
            ),
            (
                format!(r#"[{{"job_id":"ab1","job_id":"b-2",{secret}}}]"#),
                r#"[{"job_id":"b-2"}]"#.into(),
            ),
            (format!(r#"[{{"id":"ab1","title":{{{secret}}},"status":["x"]}}]"#), "[{}]".into()),
            (format!(r#"{{"id":"ab1","jobs":[{job}]}}"#), "{}".into()),
        ] {
            let shown = with_public_fields_of(list.as_bytes(), &held).unwrap();
            assert_eq!(shown, after.as_bytes(), "{list}");
        }
        let other = format!(r#"{{"jobs":[{own}]}}"#);
        assert!(with_public_fields_of(other.as_bytes(), &held).is_none());
    }

    #[test]
    fn the_ids_of_a_list_are_those_of_all_its_objects() {
        let list =
            br#"{"id":"r","jobs":[{"job_id":"a"},{"title":"b"},{"job_id":5,"x":{"_id":"c"}}]}"#;
        let found = ids(list).unwrap();
        assert_eq!(found.iter().map(Slug::as_str).collect::<Vec<_>>(), ["r", "a", "5", "c"]);
        for body in ["", "{}", "\u{feff}[]", r#""job_id""#] {
            assert!(ids(body.as_bytes()).unwrap().is_empty(), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_has_no_ids_to_check() {
        let job = r#"{"jobs":[{"job_id":"a"}]}"#;
        let utf16: Vec<u8> = job.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let nan = job.replace("\"a\"", "\"a\",\"x\":NaN");
        let deep = format!("{}{job}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        for body in [&utf16[..], nan.as_bytes(), format!("{job}{job}").as_bytes(), deep.as_bytes()]
        {
            assert!(ids(body).is_none(), "{}", String::from_utf8_lossy(body));
        }
    }
}

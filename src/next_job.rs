//! A request for any job: which jobs it takes, and what a list tells of the jobs to choose from.

use sha2::{Digest, Sha256};

use crate::{
    action::{Field, JsonType},
    json::{JsonError, JsonText, NamedValue, Object},
    types::{CreditAmount, Slug, TOKEN_PREFIX},
};

/// The fields of a request.
pub const FIELDS: &[Field] = &[
    Field::new("job_type", JsonType::Texts, "Only jobs of one of these types."),
    Field::new("min_reward_credits", JsonType::Number, "Only jobs that pay so much."),
    Field::text("title_contains", "Only jobs with this in their title, in upper or lower case."),
    Field::text(WAIT, "How long to wait for such a job, from `0s` to `50s`."),
];

/// How long it waits. This is no part of what makes it the same request.
const WAIT: &str = "wait";

/// The status of a job that can be reserved (protocol §6).
const OPEN: &str = "open";

/// An answer of more levels is not read to its ground.
const MAX_DEPTH: usize = 32;

/// A request for any job.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// The jobs that it takes.
    pub filter: JobFilter,
    /// How long it waits, as it says it.
    pub wait: Option<String>,
    /// A hash of all that makes it the same request.
    pub fingerprint: [u8; 32],
}

/// The jobs that a request takes. A job without a field that is asked for is none of them.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    job_types: Option<Vec<String>>,
    min_reward: Option<CreditAmount>,
    /// In lower case.
    title_contains: Option<String>,
}

/// Why a body is no request for a job.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJobRequest {
    /// It is no JSON object.
    #[error(transparent)]
    Body(#[from] JsonError),
    /// A field that is not known, which may be meant as a filter.
    #[error("{field} is not known here; the fields are {known}", field = .0, known = known_names())]
    Unknown(String),
    /// A field has another kind of value.
    #[error("{name} must be {must}")]
    Value {
        /// The name of the field.
        name: &'static str,
        /// The values that it takes.
        must: &'static str,
    },
}

/// A job of a list, as far as it is chosen by that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedJob {
    pub(crate) id: Slug,
    pub(crate) reward: Option<CreditAmount>,
    job_type: Option<String>,
    /// In lower case.
    title: Option<String>,
    /// Whether it can be reserved, as far as the list tells.
    pub(crate) is_open: bool,
    /// Whether the wallet has it, and the client that held it has released it.
    pub(crate) is_released: bool,
}

impl JobRequest {
    /// Reads the body of a request; an empty one asks for any job. A field that is `null` is none.
    ///
    /// # Errors
    /// See [`InvalidJobRequest`].
    pub fn parse(body: &[u8]) -> Result<Self, InvalidJobRequest> {
        let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let mut object = Object::parse(body)?;
        object.retain(|_, value| value.as_str() != "null");
        let whole = object.to_canonical_of(|name| name != WAIT);
        let fingerprint = Sha256::digest(whole.as_str()).into();
        let given = JsonText::parse(whole.as_str().as_bytes());
        let names =
            given.into_iter().flat_map(JsonText::fields).filter_map(|(name, _)| name.text());
        if let Some(name) =
            names.into_iter().find(|name| !FIELDS.iter().any(|field| field.name == name))
        {
            return Err(InvalidJobRequest::Unknown(shown(&name)));
        }
        let text = |name: &'static str, must| match object.field(name) {
            None => Ok(None),
            Some(_) => object.text(name).map(Some).ok_or(InvalidJobRequest::Value { name, must }),
        };
        let filter = JobFilter {
            job_types: job_types(&object)?,
            min_reward: min_reward(&object)?,
            title_contains: text("title_contains", "a text")?.map(|text| text.to_lowercase()),
        };
        Ok(Self { filter, wait: text(WAIT, "a duration, such as \"20s\"")?, fingerprint })
    }
}

fn known_names() -> String {
    FIELDS.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
}

/// A name that is not known, as far as it may be repeated.
fn shown(name: &str) -> String {
    if name.contains(TOKEN_PREFIX) {
        return "a field".to_owned();
    }
    format!("field \"{}\"", name.escape_default().take(60).collect::<String>())
}

fn job_types(body: &Object) -> Result<Option<Vec<String>>, InvalidJobRequest> {
    let Some(value) = body.field("job_type") else { return Ok(None) };
    let must = "an array of texts, such as [\"general\"]";
    let wrong = || InvalidJobRequest::Value { name: "job_type", must };
    let is_array = value.as_str().starts_with('[');
    let json = JsonText::parse(value.as_str().as_bytes()).filter(|_| is_array).ok_or_else(wrong)?;
    let texts = json.items().into_iter().map(JsonText::text).collect::<Option<_>>();
    texts.ok_or_else(wrong).map(Some)
}

fn min_reward(body: &Object) -> Result<Option<CreditAmount>, InvalidJobRequest> {
    let Some(value) = body.field("min_reward_credits") else { return Ok(None) };
    let must = "a number of credits, such as 500";
    let wrong = |_| InvalidJobRequest::Value { name: "min_reward_credits", must };
    value.as_str().parse().map_err(wrong).map(Some)
}

impl JobFilter {
    /// Whether the request takes a job.
    pub(crate) fn takes(&self, job: &ListedJob) -> bool {
        let Self { job_types, min_reward, title_contains } = self;
        let is_of_type = |types: &Vec<String>| {
            job.job_type.as_ref().is_some_and(|job_type| types.contains(job_type))
        };
        let has_title =
            |part: &String| job.title.as_ref().is_some_and(|title| title.contains(part));
        job_types.as_ref().is_none_or(is_of_type)
            && min_reward.is_none_or(|least| job.reward.is_some_and(|reward| reward >= least))
            && title_contains.as_ref().is_none_or(has_title)
    }
}

impl ListedJob {
    /// A job of which only the id is known.
    pub(crate) fn named(id: Slug) -> Self {
        Self { id, reward: None, job_type: None, title: None, is_open: true, is_released: false }
    }

    /// A job that was released: what the answer to its reserve tells, and besides what a list told.
    pub(crate) fn released(id: &Slug, reserve: &[u8], list: Option<&Self>) -> Self {
        let told = listed(reserve).unwrap_or_default();
        let told = told.into_iter().find(|job| job.id.is_same(id.as_str()));
        let told = told.unwrap_or_else(|| Self::named(id.clone()));
        Self {
            id: id.clone(),
            reward: told.reward.or_else(|| list?.reward),
            job_type: told.job_type.or_else(|| list?.job_type.clone()),
            title: told.title.or_else(|| list?.title.clone()),
            is_open: false,
            is_released: true,
        }
    }

    /// The job that an object of an answer is about, if it has a usable id.
    fn of(object: JsonText<'_>) -> Option<Self> {
        let text = |name| object.field(name).map(NamedValue::Json).and_then(NamedValue::text);
        let status = text("status");
        Some(Self {
            id: text("job_id")?.parse().ok()?,
            reward: text("reward_credits").and_then(|reward| reward.parse().ok()),
            job_type: text("job_type"),
            title: text("title").map(|title| title.to_lowercase()),
            is_open: status.is_none_or(|status| status.eq_ignore_ascii_case(OPEN)),
            is_released: false,
        })
    }
}

/// The jobs in the answer to a list, wherever they stand in it; `None` if it cannot be read.
pub(crate) fn listed(answer: &[u8]) -> Option<Vec<ListedJob>> {
    let mut found = Vec::new();
    collect(JsonText::parse(answer)?, MAX_DEPTH, &mut found);
    Some(found)
}

fn collect(json: JsonText<'_>, depth: usize, found: &mut Vec<ListedJob>) {
    if depth == 0 || !json.as_str().starts_with(['{', '[']) {
        return;
    }
    found.extend(ListedJob::of(json));
    let values = json.fields().map(|(_, value)| value);
    values.chain(json.items()).for_each(|value| collect(value, depth - 1, found));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Result<JobRequest, String> {
        JobRequest::parse(body.as_bytes()).map_err(|error| error.to_string())
    }

    fn job(fields: &str) -> ListedJob {
        let list = format!(r#"{{"data":{{"jobs":[{{"job_id":"a",{fields}}}]}}}}"#);
        listed(list.as_bytes()).unwrap().pop().unwrap()
    }

    #[test]
    fn a_job_matches_by_all_fields_that_are_asked_for_and_never_without_one() {
        let whole = r#""title":"Write a HAIKU","job_type":"general","reward_credits":500.5"#;
        for (filter, matches) in [
            ("", true),
            ("{}", true),
            (r#"{"job_type":null,"title_contains":null,"min_reward_credits":null}"#, true),
            (r#"{"job_type":["x","general"]}"#, true),
            (r#"{"job_type":["General"]}"#, false),
            (r#"{"job_type":[]}"#, false),
            (r#"{"min_reward_credits":500.5}"#, true),
            (r#"{"min_reward_credits":500.6}"#, false),
            (r#"{"title_contains":"Haiku"}"#, true),
            (r#"{"title_contains":"sonnet"}"#, false),
            (r#"{"title_contains":"haiku","job_type":["x"]}"#, false),
        ] {
            let filter = request(filter).unwrap().filter;
            assert_eq!(filter.takes(&job(whole)), matches, "{filter:?}");
        }
        for filter in [
            r#"{"job_type":["general"]}"#,
            r#"{"min_reward_credits":0}"#,
            r#"{"title_contains":""}"#,
        ] {
            let filter = request(filter).unwrap().filter;
            for without in [r#""x":1"#, r#""title":null,"job_type":null,"reward_credits":"much""#] {
                assert!(!filter.takes(&job(without)), "{filter:?} {without}");
            }
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_refused_with_those_that_are() {
        let refused = request(r#"{"reward":5}"#).unwrap_err();
        assert_eq!(
            refused,
            "field \"reward\" is not known here; the fields are job_type, min_reward_credits, \
             title_contains, wait"
        );
        let token = format!(r#"{{"{TOKEN_PREFIX}abc":1}}"#);
        assert!(request(&token).unwrap_err().starts_with("a field is not"));
        for (body, says) in [
            (r#"{"job_type":"general"}"#, "job_type must be an array"),
            (r#"{"job_type":[1]}"#, "job_type must be an array"),
            (r#"{"min_reward_credits":"500"}"#, "min_reward_credits must be a number"),
            (r#"{"min_reward_credits":-1}"#, "min_reward_credits must be a number"),
            (r#"{"title_contains":1}"#, "title_contains must be a text"),
            (r#"{"wait":20}"#, "wait must be a duration"),
        ] {
            assert!(request(body).unwrap_err().starts_with(says), "{body}");
        }
        assert!(request("[]").is_err());
    }

    #[test]
    fn a_request_is_the_same_however_long_it_waits() {
        let fingerprint = |body| request(body).unwrap().fingerprint;
        let first = fingerprint(r#"{"job_type":["a"],"wait":"1s"}"#);
        assert_eq!(first, fingerprint(r#"{"wait":null, "title_contains":null, "job_type":["a"]}"#));
        assert_ne!(first, fingerprint(r#"{"job_type":["b"],"wait":"1s"}"#));
        assert_eq!(request(r#"{"wait":"1s"}"#).unwrap().wait.as_deref(), Some("1s"));
    }

    #[test]
    fn a_job_is_open_unless_its_status_says_otherwise() {
        for (status, is_open) in
            [("\"open\"", true), ("\"OPEN\"", true), ("null", true), ("\"reserved\"", false)]
        {
            assert_eq!(job(&format!(r#""status":{status}"#)).is_open, is_open, "{status}");
        }
        assert!(listed(b"{").is_none());
        let others = br#"{"jobs":[{"title":"no id"},{"job_id":"../x"},{"job_id":{}}]}"#;
        assert!(listed(others).unwrap().is_empty());
    }
}

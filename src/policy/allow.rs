//! The calls that a client may make.

use std::{fmt, str::FromStr};

use crate::{
    action::{ACTIONS, About, Action},
    config::nearest,
};

/// The word for every call there is.
const ALL: &str = "all";

/// The word for every call that changes nothing.
const READ: &str = "read";

/// The words for every call about one kind of thing. The calls of these names are lists of such things,
/// so each is in its group.
const GROUPS: [(&str, About); 3] =
    [("jobs", About::Job), ("tools", About::Product), ("workflows", About::Workflow)];

/// Calls, as a list of words with commas between: `all`, `read`, `jobs`, `tools`, `workflows`, or the names
/// of actions. A word keeps its meaning when an action is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow(Vec<Word>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    All,
    Read,
    Group(&'static str, About),
    Only(&'static Action),
}

/// Why a text is no list of calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAllow {
    /// No word at all.
    #[error("at least one word is needed; there are {}", Allow::words())]
    Empty,
    /// A word that stands for no call.
    #[error("there is no action {:?}; {}", .0, advice(.0))]
    Unknown(String),
}

impl Allow {
    /// Every call there is.
    pub(super) fn everything() -> Self {
        Self(vec![Word::All])
    }

    /// The words that a list may have, for people.
    pub fn words() -> String {
        known().collect::<Vec<_>>().join(", ")
    }

    /// Whether the list has this call.
    pub fn has(&self, action: &Action) -> bool {
        self.0.iter().any(|word| match word {
            Word::All => true,
            Word::Read => !action.changes(),
            Word::Group(_, about) => action.about == *about,
            Word::Only(only) => *only == action,
        })
    }
}

impl FromStr for Allow {
    type Err = InvalidAllow;

    fn from_str(text: &str) -> Result<Self, InvalidAllow> {
        let mut words: Vec<Word> = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let word = parse_word(word)?;
            if !words.contains(&word) {
                words.push(word);
            }
        }
        if words.is_empty() { Err(InvalidAllow::Empty) } else { Ok(Self(words)) }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().map(|word| match word {
            Word::All => ALL,
            Word::Read => READ,
            Word::Group(name, _) => name,
            Word::Only(action) => action.name,
        });
        f.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

fn parse_word(word: &str) -> Result<Word, InvalidAllow> {
    match word {
        ALL => Ok(Word::All),
        READ => Ok(Word::Read),
        name => {
            let group = GROUPS.into_iter().find(|(group, _)| *group == name);
            let group = group.map(|(name, about)| Word::Group(name, about));
            let only = || Action::named(name).map(Word::Only);
            group.or_else(only).ok_or_else(|| InvalidAllow::Unknown(name.to_owned()))
        }
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    let groups = GROUPS.into_iter().map(|(name, _)| name);
    let names = ACTIONS.iter().map(|action| action.name);
    let names = names.filter(|name| GROUPS.iter().all(|(group, _)| group != name));
    groups.chain([READ, ALL]).chain(names)
}

fn advice(word: &str) -> String {
    let is_part = |action: &&Action| action.path.split(['/', '_']).any(|part| part == word);
    let of_path: Vec<_> = ACTIONS.iter().filter(is_part).map(|action| action.name).collect();
    match nearest(word, known()) {
        Some(near) => format!("did you mean {near}?"),
        None if !of_path.is_empty() => format!("did you mean {}?", of_path.join(",")),
        None => format!("there are {}", Allow::words()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the calls that a list has.
    fn allowed(text: &str) -> Vec<&'static str> {
        let allow: Allow = text.parse().unwrap();
        let allowed = ACTIONS.iter().filter(|action| allow.has(action));
        allowed.map(|action| action.name).collect()
    }

    #[test]
    fn a_list_has_what_its_words_stand_for_and_nothing_else() {
        let reads = [
            "job_list",
            "job_status",
            "balance",
            "tools",
            "workflows",
            "workflow_fetch",
            "workflow_active",
        ];
        assert_eq!(allowed("read"), reads);
        assert_eq!(allowed("job_reserve, job_list"), ["job_list", "job_reserve"]);
        assert_eq!(allowed("job_list,job_status,job_list"), ["job_list", "job_status"]);
        assert_eq!(allowed("tools"), ["tools", "tool_invoke", "tool_pay", "invoke"]);
        assert!(allowed("workflows").iter().all(|name| name.starts_with("workflow")));
        let all_about_jobs = ACTIONS.iter().filter(|action| action.name.starts_with("job_"));
        assert_eq!(allowed("jobs"), all_about_jobs.map(|action| action.name).collect::<Vec<_>>());
        assert_eq!(allowed("all").len(), ACTIONS.len());
        assert!(ACTIONS.iter().all(|action| Allow::everything().has(action)));
    }

    #[test]
    fn a_list_displays_as_it_is_read() {
        for (text, same) in [("jobs", "jobs"), (" read , job_reserve,read,", "read,job_reserve")] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), same);
            assert_eq!(same.parse::<Allow>(), text.parse());
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_what_was_meant_or_all_there_are() {
        let refused = |text: &str| text.parse::<Allow>().unwrap_err().to_string();
        let near = "there is no action \"job_complet\"; did you mean job_complete?";
        assert_eq!(refused("read,job_complet"), near);
        assert!(refused("credits").ends_with("did you mean balance,credits_purchase?"));
        let names = ACTIONS.iter().map(|action| action.name);
        let names: Vec<_> = names.filter(|name| !["tools", "workflows"].contains(name)).collect();
        let all = format!("there are jobs, tools, workflows, read, all, {}", names.join(", "));
        assert_eq!(refused("everything"), format!("there is no action \"everything\"; {all}"));
        assert_eq!(refused(" ,"), format!("at least one word is needed; {all}"));
        assert!("Read".parse::<Allow>().is_err());
    }
}

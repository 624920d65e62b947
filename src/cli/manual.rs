//! `manual`: the manual, a topic at a time.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{failure::Failure, output::print};
use crate::manual::{TOPICS, Topic};

/// Print the manual: the list of topics, or one of them
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy manual\n  agentpmt-proxy manual errors")]
pub(super) struct Manual {
    /// The topic
    #[arg(value_parser = topic_parser())]
    topic: Option<&'static Topic>,
}

impl Manual {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.topic {
            Some(topic) => print(topic.text),
            None => print(&list()),
        }
    }
}

fn list() -> String {
    TOPICS.iter().map(|topic| format!("{:15}{}\n", topic.name, topic.about())).collect()
}

/// Takes the name of a topic; the help and the error show all of them.
fn topic_parser() -> impl TypedValueParser<Value = &'static Topic> {
    PossibleValuesParser::new(TOPICS.iter().map(|topic| topic.name))
        .try_map(|name| Topic::named(&name).ok_or("there is no such topic"))
}

//! The manual, one topic a file, which `agentpmt-proxy manual` prints.

/// One topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Topic {
    /// The word that names it, which is also that of its file.
    pub name: &'static str,
    /// The whole text, in Markdown. Its first line is the heading, with what the topic is about.
    pub text: &'static str,
}

macro_rules! topic {
    ($name:literal) => {
        Topic { name: $name, text: include_str!(concat!("manual/", $name, ".md")) }
    };
}

/// Every topic, in the order for reading.
pub static TOPICS: &[Topic] = &[
    topic!("api"),
    topic!("mcp"),
    topic!("paying"),
    topic!("errors"),
    topic!("reliability"),
    topic!("configuration"),
    topic!("wallets"),
    topic!("sharing"),
    topic!("operating"),
    topic!("state"),
    topic!("sandbox"),
    topic!("security"),
    topic!("performance"),
];

impl Topic {
    /// The topic with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TOPICS.iter().find(|topic| topic.name == name)
    }

    /// Its subject, in a few words.
    pub fn about(&self) -> &'static str {
        let heading = self.text.lines().next().unwrap_or_default();
        heading.split_once(": ").map_or(heading, |(_, about)| about)
    }
}

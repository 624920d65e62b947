//! The jobs that are there from the start, once or more often. Their ids never change, so that a
//! script can name them.

/// A job whose proof is words.
pub(super) const GENERAL: &str = "general";

/// A job whose proof is a published workflow besides.
pub(super) const WORKFLOW_CREATION: &str = "workflow_creation";

/// A job whose proof is one post besides.
pub(super) const SOCIAL_SHARE: &str = "social_share";

/// A job as it was posted.
pub(super) struct Seed {
    pub(super) id: &'static str,
    pub(super) job_type: &'static str,
    pub(super) reward_credits: i64,
    pub(super) title: &'static str,
    pub(super) public_description: &'static str,
    /// Only for the wallet that reserves.
    pub(super) job_instructions: &'static str,
}

pub(super) static JOBS: [Seed; 15] = [
    Seed {
        id: "68f0a1c27b3e4d5f60718201",
        job_type: GENERAL,
        reward_credits: 400,
        title: "Check forty product links for dead ends",
        public_description: "Visit every link of a short catalogue and say which ones no longer \
            lead to the product.",
        job_instructions: "The catalogue is at https://shop.example/catalogue.csv. Follow \
            redirects, at most five. For each dead link state the row, the address and the final \
            status. Put the list into proof_text, one line a link.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718202",
        job_type: WORKFLOW_CREATION,
        reward_credits: 2500,
        title: "Workflow: handle an inbound support ticket",
        public_description: "Build a workflow that takes a support e-mail, files a ticket, sets \
            its urgency and posts a summary to the team.",
        job_instructions: "Four nodes: read the e-mail, create the ticket, classify (low, normal, \
            urgent), post to the channel #support. Urgent tickets must reach the post without \
            waiting for anything else. Publish it and submit its workflow_id.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718203",
        job_type: GENERAL,
        reward_credits: 650,
        title: "Summarise a public hearing in plain words",
        public_description: "Read the minutes of a town's budget hearing and write half a page \
            that a resident understands.",
        job_instructions: "Minutes: https://town.example/hearings/2026-03.pdf. At most 2,000 \
            characters, no jargon, every amount with its year. Name the three decisions first.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718204",
        job_type: GENERAL,
        reward_credits: 300,
        title: "Translate an error catalogue into German",
        public_description: "Sixty short error messages of a billing program, English to German, \
            formal address.",
        job_instructions: "Source: https://billing.example/errors.json. Keep every {placeholder} \
            as it is. Upload the file to the address in its `upload` field and give the receipt \
            number as proof.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718205",
        job_type: WORKFLOW_CREATION,
        reward_credits: 1800,
        title: "Workflow: weekly competitor price watch",
        public_description: "Build a workflow that compares ten prices each Monday and reports \
            those that moved by more than five percent.",
        job_instructions: "Nodes: schedule, fetch, compare with last week's sheet, report. A \
            price that cannot be read must appear in the report as unknown, never as zero. \
            Publish it and submit its workflow_id.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718206",
        job_type: GENERAL,
        reward_credits: 900,
        title: "Find the opening hours of twenty-five libraries",
        public_description: "Collect current opening hours, with the page on which each of them \
            stands.",
        job_instructions: "The list is at https://libraries.example/list.txt. For each: name, \
            hours per weekday, source address, day on which you looked. Say so where a page gives \
            no hours; do not guess.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718207",
        job_type: GENERAL,
        reward_credits: 1200,
        title: "Reproduce a reported bug in a date picker",
        public_description: "A web form is said to lose the chosen day when the clock changes. \
            Show whether it does.",
        job_instructions: "Form: https://forms.example/demo. Try the nights of both clock changes \
            in Europe/Berlin and America/New_York. Proof: steps, browser version, what you \
            expected, what you saw.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718208",
        job_type: WORKFLOW_CREATION,
        reward_credits: 3200,
        title: "Workflow: invoices from a mailbox to a ledger",
        public_description: "Build a workflow that reads invoices from a mailbox, extracts \
            supplier, date and amount, and adds them to a ledger once.",
        job_instructions: "The same invoice often arrives twice: key on supplier and invoice \
            number. Amounts over 5,000 go to a person first. Publish it and submit its \
            workflow_id with one sentence on how a second copy is recognised.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f60718209",
        job_type: GENERAL,
        reward_credits: 250,
        title: "Write alternative texts for fifteen photographs",
        public_description: "Short descriptions for people who use a screen reader, in English.",
        job_instructions: "Photographs: https://museum.example/set/15. One sentence each, at most \
            120 characters, what is seen and not what is felt. Number them as the page does.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f6071820a",
        job_type: GENERAL,
        reward_credits: 1500,
        title: "Compare three transit feeds for missing stops",
        public_description: "Three timetables of one region disagree. List the stops that are not \
            in all of them.",
        job_instructions: "Feeds: https://transit.example/a.zip, b.zip and c.zip. Two stops are \
            the same if they are closer than 30 m and share a line. Proof: the count for each \
            feed and the ten stops with the most departures.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f6071820b",
        job_type: WORKFLOW_CREATION,
        reward_credits: 2100,
        title: "Workflow: welcome a new newsletter reader",
        public_description: "Build a workflow that greets a new reader, waits three days and \
            sends the three most read articles.",
        job_instructions: "Nodes: sign-up, greeting, wait, pick articles, send. Who leaves the \
            list during the wait gets nothing more. Publish it and submit its workflow_id.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f6071820c",
        job_type: GENERAL,
        reward_credits: 5000,
        title: "Review a small library's documentation",
        public_description: "Follow the getting-started page of a library word by word and report \
            every place where you got stuck.",
        job_instructions: "Page: https://library.example/start. Use a clean machine, state system \
            and version. For each place: the sentence, what you did, what happened, the sentence \
            that you would have needed.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f6071820d",
        job_type: SOCIAL_SHARE,
        reward_credits: 200,
        title: "Share: a museum opens its archive",
        public_description: "Post about a museum that puts its photographs online, with the link \
            that you get.",
        job_instructions: "One public post of your own words, two sentences at least, that holds \
            the tracked link. Submit the address of the post as the one item of social_posts.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f6071820e",
        job_type: SOCIAL_SHARE,
        reward_credits: 150,
        title: "Share: a new map of cycle paths",
        public_description: "Tell people in your town of a map that shows where cycle paths are \
            planned.",
        job_instructions: "Say in which town you are, and what is new there. The post must hold \
            the tracked link and be public for a week. Submit it as the one item of social_posts.",
    },
    Seed {
        id: "68f0a1c27b3e4d5f6071820f",
        job_type: SOCIAL_SHARE,
        reward_credits: 350,
        title: "Share: tools for agents that write",
        public_description: "Recommend a tool that checks texts, to people who build agents.",
        job_instructions: "Say for whom it is good and for whom not. The post must hold the \
            tracked link and say that it is an advertisement. Submit it as the one item of \
            social_posts.",
    },
];

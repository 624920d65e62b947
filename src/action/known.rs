//! The fields that are known of bodies, queries and answers (protocol §5, §6, §9). Of prices and of money
//! it is not known whether they are numbers or text.

use super::field::{
    Field,
    JsonType::{Any, Boolean, Integer, Number, Object, Objects, Text, Words},
};

pub(super) const PAGE: &[Field] = &[
    Field::new(
        "limit",
        Integer { min: 1, max: Some(100), default: Some(50) },
        "The most entries of the answer.",
    ),
    Field::new(
        "skip",
        Integer { min: 0, max: None, default: Some(0) },
        "The entries to leave out at the beginning.",
    ),
];

pub(super) const PAY: &[Field] =
    &[Field::new("pay", Words(&["x402"]), "Asks to pay for this one call.").required()];

pub(super) const COMPLETION: &[Field] = &[
    Field::new(
        "proof_text",
        Text(Some(4000)),
        "The proof that the job's instructions ask for, in words.",
    )
    .required(),
    Field::text(
        "reservation_id",
        "The reservation; left out, the proxy fills in the one it knows.",
    ),
    Field::text("workflow_id", "The published workflow, if the job asks for one."),
    Field::new("social_posts", Objects(&[]), "The one post, if the job asks for it."),
];

pub(super) const WORKFLOW: &[Field] =
    &[NAME.required(), DESCRIPTION.required(), NODES.required(), EDGES.required()];

pub(super) const PARTS_OF_WORKFLOW: &[Field] = &[NAME, DESCRIPTION, NODES, EDGES];

const NAME: Field = Field::text("name", "The name of the workflow.");

const DESCRIPTION: Field = Field::text("description", "Its purpose.");

const NODES: Field = Field::new("nodes", Objects(NODE), "The steps; each id stands once.");

const EDGES: Field = Field::new("edges", Objects(EDGE), "The order of the steps, without circles.");

const NODE: &[Field] = &[
    Field::text("id", "The id of the step.").required(),
    Field::new(
        "type",
        Words(&["tool", "prompt", "for_each", "branch", "merge", "notify_human"]),
        "Its type. The step has its settings in an object under the key that is named like the type.",
    )
    .required(),
    Field::text("label", "A few words for people.").required(),
    Field::new(
        "tool",
        Object(&[
            Field::text("product_id", "The id of the tool.").required(),
            Field::text("product_name", "Its name.").required(),
            Field::text("parameters", "Its input: an object as JSON text."),
        ]),
        "The settings of a step of the type `tool`.",
    ),
];

const EDGE: &[Field] = &[
    Field::text("id", "The id of the edge.").required(),
    Field::text("from", "The id of a step.").required(),
    Field::text("to", "The id of the step after it.").required(),
];

/// A workflow with the least that can be published.
pub(super) const GRAPH: &str = r#"{
    "name": "Count words",
    "description": "Counts the words of a draft",
    "nodes": [{"id": "count", "type": "tool", "label": "Count",
               "tool": {"product_id": "69a1c0d2e3f4051627384901", "product_name": "word-count"}}],
    "edges": []
}"#;

pub(super) const PURCHASE: &[Field] = &[
    Field::text("wallet_address", "The wallet that gets the credits.").required(),
    Field::new(
        "credits",
        Integer { min: 500, max: None, default: None },
        "The number of credits, a multiple of 500.",
    )
    .required(),
    Field::new("payment_method", Words(&["x402"]), "The way to pay.").required(),
    Field::text("request_id", "A handle of the caller's own."),
    Field::text(
        "transaction_hash",
        "The transaction of an earlier payment that is not settled yet.",
    ),
    Field::text("payer_wallet_address", "The wallet that pays, if it is another."),
    Field::text("sponsor_signature", "The signature of that wallet."),
];

pub(super) const TOOL: &[Field] =
    &[Field::new("parameters", Object(&[]), "The input of the tool.").required()];

pub(super) const INSTANCE: &[Field] =
    &[Field::text("instance_id", "A name of your own for a run.")];

pub(super) const ENDED_SESSION: &[Field] =
    &[Field::text("workflow_session_id", "The session to end.").required()];

pub(super) const JOB_LIST: &[Field] = &[
    Field::new("jobs", Objects(JOB), "The jobs."),
    Field::new("limit", Number, "The most entries of the answer."),
    Field::new("skip", Number, "The entries that were left out."),
];

const JOB_ID: Field = Field::text("job_id", "The id of the job.");

const JOB_STATE: Field =
    Field::text("status", "The state of the job: `open`, `reserved`, `submitted` and others.");

const REWARD: Field = Field::new("reward_credits", Number, "The credits that it pays.");

const JOB: &[Field] = &[
    JOB_ID,
    Field::text("title", "Its title."),
    Field::text("public_description", "Its description, which everyone may read."),
    REWARD,
    JOB_STATE,
    Field::text("job_type", "`general`, `workflow_creation`, `social_share` or another."),
];

const RESERVATION_ID: Field = Field::text("reservation_id", "The id of the reservation.");

const RESERVED_UNTIL: Field =
    Field::text("reserved_until", "The end of the reservation (RFC 3339).");

pub(crate) const RESERVATION: &[Field] = &[
    Field::text("message", "A sentence for people."),
    Field::new(
        "job",
        Object(&[
            JOB_ID,
            Field::text("title", "Its title."),
            Field::text("job_instructions", "What is to be done. Only this answer has it."),
            RESERVATION_ID,
            RESERVED_UNTIL,
            REWARD,
            JOB_STATE,
        ]),
        "The job.",
    ),
    RESERVATION_ID,
    RESERVED_UNTIL,
];

const SUBMITTED: &[Field] = &[
    Field::text("submission_id", "The id of the submission."),
    Field::text("status", "`submitted`, and at the end `approved` or `rejected`."),
    Field::text("proof_text", "The proof."),
];

pub(super) const SUBMISSION: &[Field] = &[
    Field::text("message", "A sentence for people."),
    Field::new("job", Object(&[JOB_ID, JOB_STATE]), "The job."),
    Field::new("submission", Object(SUBMITTED), "The submission."),
];

pub(super) const JOB_STATUS: &[Field] = &[
    Field::text("wallet_address", "The wallet that asks."),
    Field::new("job", Object(JOB), "The job."),
    Field::new("has_active_reservation", Boolean, "Whether the wallet holds the job."),
    Field::new("can_submit", Boolean, "Whether a proof would be taken."),
    Field::new("submission", Object(SUBMITTED), "The wallet's submission, if there is one."),
    Field::new(
        "payout",
        Object(&[
            Field::text("status", "`completed` once it is paid."),
            REWARD,
            Field::text("paid_at", "The time (RFC 3339)."),
            Field::new("wallet_balance_credits", Any, "The credits of the wallet after it."),
        ]),
        "The reward, once it is paid.",
    ),
];

pub(super) const DRAFT: &[Field] = &[
    Field::text("workflow_id", "The id of the workflow."),
    Field::text("name", "Its name."),
    Field::text("status", "`draft` or `published`."),
];

const BALANCE_CREDITS: Field =
    Field::new("balance_credits", Any, "The credits that the wallet has then.");

const BALANCE_USD: Field = Field::new("balance_usd", Any, "The same in USD.");

pub(super) const BALANCE: &[Field] =
    &[Field::text("wallet_address", "The wallet."), BALANCE_CREDITS, BALANCE_USD];

pub(super) const PURCHASED: &[Field] = &[
    Field::text("transaction_hash", "The transaction of the payment."),
    Field::text("status", "The state of the purchase."),
    Field::new("credits", Any, "The credits that were bought."),
    BALANCE_CREDITS,
];

pub(super) const TOOL_LIST: &[Field] = &[Field::new("tools", Objects(&[]), "The tools.")];

pub(super) const TOOL_ANSWER: &[Field] = &[
    Field::new("result", Any, "The tool's result."),
    Field::new("charged_credits", Any, "The credits that it cost."),
    Field::new("price_credits", Any, "The price."),
    BALANCE_CREDITS,
    BALANCE_USD,
    Field::text("credit_source", "The account that paid."),
];

pub(super) const TOOL_PAID: &[Field] = &[
    Field::new("success", Boolean, "Whether the tool did its work."),
    Field::new("response", Any, "The tool's result."),
    Field::new("x402", Object(&[]), "The payment, if there was one."),
];

pub(super) const WORKFLOW_LIST: &[Field] =
    &[Field::new("workflows", Objects(&[]), "The workflows.")];

pub(super) const WORKFLOW_FETCHED: &[Field] =
    &[Field::new("workflow", Object(PARTS_OF_WORKFLOW), "The workflow.")];

const SESSION: &[Field] = &[
    Field::text("workflow_session_id", "The id of the session."),
    Field::text("workflow_id", "The workflow."),
    Field::text("instance_id", "Your name for the run."),
    Field::text("status", "The state of the session."),
];

pub(super) const WORKFLOW_SESSION: &[Field] = SESSION;

pub(super) const WORKFLOW_SESSIONS: &[Field] =
    &[Field::new("sessions", Objects(SESSION), "The sessions that run.")];

//! The table.

use http::Method;

use super::{
    known,
    row::Action,
    rule::{About, Binds, Effect, Lookup, Needs, Payload, Proof, Signed},
};

/// The field with what a tool or workflow is called with.
pub(crate) const PARAMETERS: &str = "parameters";

/// Every upstream call that the proxy makes (protocol §5).
pub static ACTIONS: &[Action] = &[
    Action {
        name: "job_list",
        summary: "List the open jobs and the wallet's own",
        description: "A loop begins here. The list also has the jobs that the wallet has reserved: take \
            one whose status is `open`, reserve it with `job_reserve`, and read its \
            instructions there. A job whose `job_type` is `workflow_creation` needs a workflow \
            besides the proof, one of `social_share` a post.",
        method: Method::POST,
        path: "/api/external/jobs/list",
        query: &[],
        body: known::PAGE,
        example: r#"{"limit": 10}"#,
        answer: known::JOB_LIST,
        about: About::Job,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::Action, payload: Payload::Fields }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "job_reserve",
        summary: "Reserve a job and read its instructions",
        description: "The answer holds the job's instructions, which nothing else shows, and \
            `reservation_id`. From then on the job is the caller's alone for 30 minutes, until \
            `reserved_until`: complete it before. A reservation cannot be given back upstream: \
            reserve only what you can finish now, and let it expire rather than send incomplete \
            proof. If the answer is lost, ask `job_status` before you reserve again.",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/reserve",
        query: &[],
        body: &[],
        example: "",
        answer: known::RESERVATION,
        about: About::Job,
        needs: Needs::NotHeldByAnother,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Fields }),
        effect: Effect::Reserves,
        lookup: Lookup::JobStatus,
    },
    Action {
        name: "job_complete",
        summary: "Submit the proof of a reserved job",
        description: "Allowed once, while the caller's reservation runs. The proof is what the job's \
            instructions ask for. It goes to review, which `job_status` shows: wait there until \
            it is `approved`, which pays the reward, or `rejected`, which opens the job again. \
            It is never submitted twice: if the outcome is unknown, ask `job_status`, or send \
            the same call again, which is answered with what became of it.",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/complete",
        query: &[],
        body: known::COMPLETION,
        example: r#"{"proof_text": "All 40 links work but these two: …"}"#,
        answer: known::SUBMISSION,
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Body }),
        effect: Effect::Submits,
        lookup: Lookup::JobStatus,
    },
    Action {
        name: "job_status",
        summary: "Ask what became of a job and its submission",
        description: "Ask before a call is repeated whose answer was lost, and after a completion until \
            `submission.status` is `approved` or `rejected`; other words may appear in between, \
            so wait for one of these two. `payout` says what was paid.",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/status",
        query: &[],
        body: &[],
        example: "",
        answer: known::JOB_STATUS,
        about: About::Job,
        needs: Needs::NotHeldByAnother,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Fields }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "job_workflow_create",
        summary: "Create the workflow of a reserved job",
        description: "For a reserved job of the type `workflow_creation`. The answer has the \
            `workflow_id` for `job_workflow_update`, `job_workflow_publish` and then \
            `job_complete`.",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/create",
        query: &[],
        body: known::WORKFLOW,
        example: known::GRAPH,
        answer: known::DRAFT,
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::WorkflowToken,
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "job_workflow_update",
        summary: "Change the workflow of a reserved job",
        description: "Send the parts that change. The workflow is a draft again, so publish it \
            afterwards.",
        method: Method::PUT,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}",
        query: &[],
        body: known::PARTS_OF_WORKFLOW,
        example: r#"{"name": "Check a text"}"#,
        answer: known::DRAFT,
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::WorkflowToken,
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "job_workflow_publish",
        summary: "Publish the workflow of a reserved job",
        description: "It must be published before `job_complete` names it, and have a node of the type \
            `tool`.",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}/publish",
        query: &[],
        body: &[],
        example: "",
        answer: known::DRAFT,
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::WorkflowToken,
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "balance",
        summary: "Read how many credits the wallet has",
        description: "100 credits are 1 USD. Approved jobs add to it; tools take from it.",
        method: Method::POST,
        path: "/api/external/credits/balance",
        query: &[],
        body: &[],
        example: "",
        answer: known::BALANCE,
        about: About::Nothing,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::Action, payload: Payload::Empty }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "credits_purchase",
        summary: "Buy credits and pay by x402",
        description: "This spends money. Without a payment of the caller's own in the header `X-PAYMENT`, \
            the proxy pays, if the operator allows it, within limits; a payment may wait for a \
            person's approval. Credits are sold in multiples of 500. A 202 says that the \
            payment is not settled: repeat the call with its `transaction_hash` until the \
            answer is another.",
        method: Method::POST,
        path: "/api/external/credits/purchase",
        query: &[],
        body: known::PURCHASE,
        example: r#"{"wallet_address": "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025", "credits": 500, "payment_method": "x402"}"#,
        answer: known::PURCHASED,
        about: About::Nothing,
        needs: Needs::Nothing,
        proof: Proof::Payment,
        effect: Effect::Pays,
        lookup: Lookup::None,
    },
    Action {
        name: "tools",
        summary: "List the tools and their prices",
        description: "Each has its slug, its actions, their input and what a use costs.",
        method: Method::GET,
        path: "/api/external/tools",
        query: known::PAGE,
        body: &[],
        example: "",
        answer: known::TOOL_LIST,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::None,
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "tool_invoke",
        summary: "Use a tool and pay with credits",
        description: "The slugs stand in the list of `tools`. This spends credits of the wallet. It is \
            never sent twice on its own: if the answer is lost, the outcome is unknown, and the \
            `balance` is a hint.",
        method: Method::POST,
        path: "/api/external/tools/{product_slug}/actions/{action_slug}/invoke",
        query: &[],
        body: known::TOOL,
        example: r#"{"parameters": {"text": "Count these four words"}}"#,
        answer: known::TOOL_ANSWER,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed {
            binds: Binds::MethodAndPath,
            payload: Payload::Object(PARAMETERS),
        }),
        effect: Effect::Spends,
        lookup: Lookup::Balance,
    },
    Action {
        name: "tool_pay",
        summary: "Use a tool and pay for this one call by x402",
        description: "This spends money for each call, within the operator's limits. The body is the \
            tool's input itself, and the query says `pay=x402`, unless the header `X-PAYMENT` \
            has a payment of the caller's own.",
        method: Method::POST,
        path: "/api/external/tools/{product_slug}/actions/{action_slug}/invoke",
        query: known::PAY,
        body: &[],
        example: r#"{"text": "Count these four words"}"#,
        answer: known::TOOL_PAID,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Payment,
        effect: Effect::Pays,
        lookup: Lookup::None,
    },
    Action {
        name: "invoke",
        summary: "Use a tool by its older call, which the server may no longer have",
        description: "Use `tool_invoke` instead, if the server has it. This spends credits of the wallet.",
        method: Method::POST,
        path: "/api/external/tools/{product_id}/invoke",
        query: &[],
        body: known::TOOL,
        example: r#"{"parameters": {"text": "Count these four words"}}"#,
        answer: known::TOOL_ANSWER,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed {
            binds: Binds::ActionAndId,
            payload: Payload::Object(PARAMETERS),
        }),
        effect: Effect::Spends,
        lookup: Lookup::Balance,
    },
    Action {
        name: "workflows",
        summary: "List the published workflows",
        description: "Each has the `workflow_id` that `workflow_fetch` and `workflow_start` take.",
        method: Method::GET,
        path: "/api/external/workflows",
        query: known::PAGE,
        body: &[],
        example: "",
        answer: known::WORKFLOW_LIST,
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::None,
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_fetch",
        summary: "Read a workflow (unconfirmed)",
        description: "The answer has the graph: its nodes and edges. Newer descriptions of the API do not \
            mention this call.",
        method: Method::POST,
        path: "/api/external/workflows/{workflow_id}/fetch",
        query: &[],
        body: &[],
        example: "",
        answer: known::WORKFLOW_FETCHED,
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Empty }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_start",
        summary: "Start a session of a workflow (unconfirmed)",
        description: "End it with `workflow_end`. Newer descriptions of the API do not mention this call.",
        method: Method::POST,
        path: "/api/external/workflows/{workflow_id}/start",
        query: &[],
        body: known::INSTANCE,
        example: r#"{"instance_id": "run-1"}"#,
        answer: known::WORKFLOW_SESSION,
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Given }),
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_active",
        summary: "Read the sessions of workflows that run (unconfirmed)",
        description: "Of one instance, if it is named, else of all. Newer descriptions of the API do not \
            mention this call.",
        method: Method::POST,
        path: "/api/external/workflows/active",
        query: &[],
        body: known::INSTANCE,
        example: "",
        answer: known::WORKFLOW_SESSIONS,
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::Action, payload: Payload::Given }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_end",
        summary: "End a session of a workflow (unconfirmed)",
        description: "The id is that of the answer of `workflow_start`. Newer descriptions of the API do \
            not mention this call.",
        method: Method::POST,
        path: "/api/external/workflows/{workflow_id}/end",
        query: &[],
        body: known::ENDED_SESSION,
        example: r#"{"workflow_session_id": "5f3c9a7e1b2d4c6f8a0b1c2d3e4f5a6b"}"#,
        answer: known::WORKFLOW_SESSION,
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Given }),
        effect: Effect::Other,
        lookup: Lookup::None,
    },
];

impl Action {
    /// The row with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_rows_share_a_name_and_those_that_share_a_route_differ_in_paying() {
        let mut names = HashSet::new();
        let mut routes = HashSet::new();
        for action in ACTIONS {
            assert!(names.insert(action.name), "{action} is there twice");
            if action.is_paid_row(ACTIONS) {
                continue;
            }
            assert!(
                routes.insert((&action.method, action.path)),
                "{action}'s route is there twice"
            );
        }
    }

    #[test]
    fn every_row_can_be_bound() {
        for action in ACTIONS {
            let ids = action.id_names().count();
            assert!(action.path.starts_with("/api/external/"), "{action}");
            match &action.proof {
                Proof::None | Proof::Payment => {}
                Proof::Signature(Signed { binds: Binds::Action, .. }) => {
                    assert_eq!(ids, 0, "{action}")
                }
                Proof::Signature(Signed { binds: Binds::ActionAndId, .. }) => {
                    assert_eq!(ids, 1, "{action}")
                }
                Proof::Signature(_) | Proof::WorkflowToken => assert!(ids >= 1, "{action}"),
            }
        }
    }

    #[test]
    fn the_first_id_is_of_what_the_row_is_about() {
        for action in ACTIONS {
            let first = action.id_names().next();
            let kind = format!("{:?}", action.about).to_lowercase();
            assert!(first.is_none_or(|id| id.starts_with(&kind)), "{action}");
            let is_about_one_job = action.about == About::Job && first.is_some();
            let asks_for_job = action.needs != Needs::Nothing
                || action.lookup == Lookup::JobStatus
                || action.proof == Proof::WorkflowToken
                || matches!(action.effect, Effect::Reserves | Effect::Submits);
            assert!(is_about_one_job || !asks_for_job, "{action}");
        }
    }
}

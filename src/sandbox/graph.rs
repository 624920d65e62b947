//! The graph of a workflow: nodes, and the edges between them (protocol §5.1).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::form::Form;

/// The type of the nodes without which a workflow is not published.
const TOOL: &str = "tool";

/// The types of nodes. A node has its settings under the key that is named like its type.
const TYPES: [&str; 6] = [TOOL, "prompt", "for_each", "branch", "merge", "notify_human"];

/// Reads the nodes and edges of a workflow; returns whether a node is a tool. Nothing else is kept,
/// since nothing here runs them.
pub(super) fn has_tool(form: &mut Form<'_>) -> Option<bool> {
    let (nodes, edges) = (form.array("nodes"), form.array("edges"));
    let nodes = nodes?;
    if nodes.is_empty() {
        let text = "List should have at least 1 item after validation, not 0";
        return form.refuse(json!(["body", "nodes"]), "too_short", text);
    }
    let mut ids = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        check_node(form, index, node);
        if node["id"].as_str().is_some_and(|id| !ids.insert(id)) {
            let text = "Value error, another node has this id";
            form.refuse::<()>(json!(["body", "nodes", index, "id"]), "value_error", text);
        }
    }
    check_edges(form, &edges?, &ids);
    Some(nodes.iter().any(|node| node["type"] == TOOL))
}

fn check_node(form: &mut Form<'_>, index: usize, node: &Value) {
    let place = |name: &str| json!(["body", "nodes", index, name]);
    for name in ["id", "type", "label"] {
        check_text(form, &node[name], place(name));
    }
    let Some(kind) = node["type"].as_str() else { return };
    if !TYPES.contains(&kind) {
        let text = format!("Input should be one of {}", TYPES.join(", "));
        form.refuse::<()>(place("type"), "enum", &text);
    } else if !node[kind].is_object() {
        form.refuse::<()>(place(kind), "dict_type", "Input should be a valid dictionary");
    } else if kind == TOOL {
        let place = |name: &str| json!(["body", "nodes", index, TOOL, name]);
        for name in ["product_id", "product_name"] {
            check_text(form, &node[TOOL][name], place(name));
        }
        let parameters = &node[TOOL]["parameters"];
        let is_json = |text| serde_json::from_str::<Value>(text).is_ok();
        if !parameters.is_null() && !parameters.as_str().is_some_and(is_json) {
            let text = "Input should be a string that holds JSON";
            form.refuse::<()>(place("parameters"), "json_type", text);
        }
    }
}

fn check_edges(form: &mut Form<'_>, edges: &[Value], nodes: &HashSet<&str>) {
    for (index, edge) in edges.iter().enumerate() {
        let place = |name: &str| json!(["body", "edges", index, name]);
        check_text(form, &edge["id"], place("id"));
        for end in ["from", "to"] {
            if !edge[end].as_str().is_some_and(|id| nodes.contains(id)) {
                form.refuse::<()>(place(end), "value_error", "Value error, it names no node");
            }
        }
    }
    let ends = edges.iter().filter_map(|edge| edge["from"].as_str().zip(edge["to"].as_str()));
    if has_cycle(ends.collect()) {
        let text = "Value error, they lead back to where they began";
        form.refuse::<()>(json!(["body", "edges"]), "value_error", text);
    }
}

fn check_text(form: &mut Form<'_>, value: &Value, place: Value) {
    if value.as_str().is_none_or(str::is_empty) {
        form.refuse::<()>(place, "string_type", "Input should be a string that is not empty");
    }
}

/// Takes away edges from nodes that no other edge leads to, until none are left or all that are left
/// go round.
fn has_cycle(mut edges: Vec<(&str, &str)>) -> bool {
    while !edges.is_empty() {
        let count = edges.len();
        let reached: HashSet<&str> = edges.iter().map(|(_, to)| *to).collect();
        edges.retain(|(from, _)| reached.contains(from));
        if edges.len() == count {
            return true;
        }
    }
    false
}

//! Attacks, as tables of bytes on a real socket: what is sent, what must come back, and that nothing
//! was signed or sent upstream. Beside them stand rows without the trick, which are signed.
//!
//! | attack | where |
//! |---|---|
//! | rebinding: a foreign, odd, doubled or missing `Host`, `X-Forwarded-*` | `names` |
//! | a target with another authority | `names` |
//! | `Origin` (`null`, sub-domain, port, case, several), `Sec-Fetch-Site` | `names` |
//! | forms, beacons, images, preflights and WebSockets of another site | `names` |
//! | `Expect: 100-continue` of whoever is refused | `names` |
//! | doubtful lengths, other transfer codings, both lengths, pipelines | `framing` |
//! | bad chunks, chunk extensions, trailers | `framing` |
//! | obs-fold, bare LF and CR, NUL, spaces before a colon | `framing` |
//! | other methods and versions, `CONNECT`, upgrades | `framing` |
//! | `%2e%2e`, `%2f`, `//`, `;`, `%00`, overlong UTF-8, line breaks in ids, queries | `paths` |
//! | duplicate keys, deep nesting, huge numbers, bytes that are no UTF-8 | `bodies` |
//! | a proof of the client's own, in every spelling and position | `bodies` |
//! | lines forged through fields of the body | `bodies` |
//! | tokens guessed, damaged, doubled, in other places; revoked or over | `callers` |
//! | rights, rates and wallets of others | `callers` |
//! | one client on the reservation or the idempotency key of another | `callers` |
//! | lines of the log and members of a problem forged | `log` |
//! | an upstream that reflects the request, or gives a browser rights | `upstream` |
//! | an upstream that shows a message to sign | `upstream` |
//! | an upstream whose certificate does not fit | `certificates` |
//! | slow heads and bodies, header floods, connections without end | `../http/connections.rs` |
//! | answers that are not taken, bodies that nobody reads | `../http/connections.rs` |
//! | connections that use up the descriptors | `../cli/serve.rs` |
//! | one client's bodies, calls and refusals without end | `../http/client_limits.rs` |
//! | bodies without end | `../http/surface.rs` |
//! | upstream redirects, answers without end | `../upstream/trouble.rs` |
//! | a client's own `X-Job-Workflow-Token`; one job's token for another | `../upstream/workflow_job.rs` |
//! | a job's token in `Authorization` | `../upstream/workflow_job.rs` |
//! | the list of jobs, read for what another client holds | `../ledger/reservations.rs` |
//! | plain HTTP, slow and foreign handshakes on a port with TLS | `../cli/tls.rs` |
//! | token comparison in constant time | `src/types/client_token.rs`, `src/store/callers.rs` |
//! | line breaks in a nonce of the upstream | `src/types.rs` |

#![allow(clippy::unwrap_used)]

#[path = "../support/agents.rs"]
mod agents;
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/common.rs"]
mod common;

mod bodies;
mod callers;
mod certificates;
mod framing;
mod log;
mod names;
mod paths;
mod upstream;
mod wire;

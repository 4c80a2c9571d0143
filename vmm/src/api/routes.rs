//! The routes: method and path to command. The path decides how the body is parsed.

use super::http::{Method, Request};
use crate::control::command::{Command, Configure, Metadata, Operate, Pluggable, Query};
use resources::{
    Action, ActionType, HintingStart, MachineConfigUpdate, RunState, SnapshotLoad, VmUpdate,
};
use serde::de::{DeserializeOwned, Error as _};

/// Why a request is not a command. The texts are Firecracker's.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No route has this method and path.
    #[error("Invalid request method and/or path: {method} {path}.")]
    Path {
        /// The method.
        method: &'static str,
        /// The first part of the path.
        path: String,
    },
    /// The body is missing, or there must be none.
    #[error("{0}")]
    Body(&'static str),
    /// The rest of the path is wrong or missing.
    #[error("{0}")]
    Tail(String),
    /// The path has no id.
    #[error("The ID cannot be empty.")]
    EmptyId,
    /// The id has other characters.
    #[error("API Resource IDs can only contain alphanumeric characters and underscores.")]
    Id,
    /// The body does not have the type that the path needs.
    #[error("An error occurred when deserializing the json body of a request: {0}.")]
    Json(#[from] serde_json::Error),
}

/// A parsed request.
#[derive(Debug)]
pub enum Parsed {
    /// A command.
    Command(Command),
    /// A request for the stream of events.
    Events,
}

/// The path and body of a request.
struct Parts<'r> {
    /// The path after its first part.
    tail: Vec<&'r str>,
    body: &'r [u8],
}

type Handler = fn(&Parts<'_>) -> Result<Parsed, RouteError>;

/// Whether a route has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Needed,
    Optional,
}

struct Route {
    method: Method,
    /// The first part of the path.
    first: &'static str,
    /// The required second part, such as `config` in `/vm/config`.
    second: Option<&'static str>,
    body: Body,
    handler: Handler,
}

const fn get(first: &'static str, second: Option<&'static str>, handler: Handler) -> Route {
    Route {
        method: Method::Get,
        first,
        second,
        body: Body::None,
        handler,
    }
}

const fn put(first: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::Put,
        first,
        second: None,
        body: Body::Needed,
        handler,
    }
}

const fn patch(first: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::Patch,
        first,
        second: None,
        body: Body::Needed,
        handler,
    }
}

const fn delete(first: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::Delete,
        first,
        second: None,
        body: Body::None,
        handler,
    }
}

/// The optional second part of a section's path.
macro_rules! second {
    () => {
        None
    };
    ($second:literal) => {
        Some($second)
    };
}

/// The handler of a section's `PUT`: with an id in the path for an entry of a list.
macro_rules! put_section {
    ($body:ident) => {
        |parts| configure(parts, Configure::$body)
    };
    ($body:ident, $id:ident) => {
        |parts| identified(parts, Configure::$body, |body| &body.$id, config)
    };
}

macro_rules! section_routes {
    ($($body:ident $field:ident ($first:literal $(, $second:literal)?) ($($id:ident)?) $set:tt $phase:ident;)*) => {
        /// The routes that set a section, made from the table [`resources::sections!`].
        const SECTION_ROUTES: &[Route] = &[$(
            Route {
                second: second!($($second)?),
                ..put($first, put_section!($body $(, $id)?))
            },
        )*];
    };
}
resources::for_each_put!(section_routes);

/// The routes that set no section of the configuration.
const ROUTES: &[Route] = &[
    get("", None, |_| query(Query::Instance)),
    get("balloon", None, get_balloon),
    get("events", None, |_| Ok(Parsed::Events)),
    get("hotplug", Some("memory"), |_| query(Query::MemoryHotplug)),
    get("machine-config", None, |_| query(Query::Machine)),
    get("metrics", Some("prometheus"), |_| query(Query::Prometheus)),
    get("mmds", None, |_| query(Query::Metadata)),
    get("version", None, |_| query(Query::Version)),
    get("vm", Some("config"), |_| query(Query::Vm)),
    put("actions", put_action),
    put("mmds", put_mmds),
    put("snapshot", put_snapshot),
    Route {
        second: Some("fork"),
        ..put("vm", |p| operate(p, Operate::Fork))
    },
    Route {
        body: Body::Optional,
        ..patch("balloon", patch_balloon)
    },
    patch("drives", |p| {
        identified(p, Operate::Drive, |d| &d.drive_id, operation)
    }),
    Route {
        second: Some("memory"),
        ..patch("hotplug", |p| operate(p, Operate::MemoryHotplug))
    },
    patch("machine-config", patch_machine),
    patch("mmds", |p| metadata(p, Metadata::Patch)),
    patch("network-interfaces", |p| {
        identified(p, Operate::Network, |n| &n.iface_id, operation)
    }),
    patch("pmem", |p| {
        identified(p, Operate::Pmem, |d| &d.id, operation)
    }),
    patch("vm", patch_vm),
    delete("drives", |p| unplug(p, Pluggable::Drive)),
    delete("network-interfaces", |p| unplug(p, Pluggable::Network)),
    delete("pmem", |p| unplug(p, Pluggable::Pmem)),
];

/// Returns the command of `request`, and warnings about deprecated fields.
///
/// # Errors
/// [`RouteError`].
pub fn parse(request: &Request) -> Result<(Parsed, Vec<String>), RouteError> {
    let trimmed = request.path.trim_start_matches('/');
    let mut tokens = trimmed.split_terminator('/');
    let first = tokens.next().unwrap_or_default();
    let tail: Vec<&str> = tokens.collect();
    let body = request.body.as_deref();
    if request.method == Method::Get && body.is_some() {
        return Err(RouteError::Body("GET request cannot have a body."));
    }
    let route = SECTION_ROUTES.iter().chain(ROUTES).find(|route| {
        route.method == request.method
            && route.first == first
            && route
                .second
                .is_none_or(|second| tail.first() == Some(&second))
    });
    let optional = route.is_some_and(|route| route.body == Body::Optional);
    match (request.method, body) {
        (Method::Put, None) if !optional => return Err(RouteError::Body("Empty PUT request.")),
        (Method::Patch, None) if !optional => {
            return Err(RouteError::Body("Empty PATCH request."));
        }
        (Method::Delete, Some(_)) => return Err(RouteError::Body("Empty Delete request.")),
        _ => {}
    }
    let route = route.ok_or_else(|| RouteError::Path {
        method: request.method.name(),
        path: first.to_owned(),
    })?;
    let parts = Parts {
        body: body.unwrap_or_default(),
        tail,
    };
    let parsed = (route.handler)(&parts)?;
    let path = match parts.tail.first() {
        Some(second) if matches!(first, "mmds" | "snapshot") => format!("{first}/{second}"),
        _ => first.to_owned(),
    };
    let value = serde_json::from_slice(parts.body).unwrap_or_default();
    Ok((parsed, resources::deprecated(&path, &value)))
}

fn json<T: DeserializeOwned>(parts: &Parts<'_>) -> Result<T, RouteError> {
    Ok(serde_json::from_slice(parts.body)?)
}

fn query(query: Query) -> Result<Parsed, RouteError> {
    Ok(Parsed::Command(Command::Query(query)))
}

fn config(part: Configure) -> Parsed {
    Parsed::Command(Command::Configure(Box::new(part)))
}

fn operation(operation: Operate) -> Parsed {
    Parsed::Command(Command::Operate(operation))
}

fn configure<T: DeserializeOwned>(
    parts: &Parts<'_>,
    part: fn(T) -> Configure,
) -> Result<Parsed, RouteError> {
    json(parts).map(|body| config(part(body)))
}

fn operate<T: DeserializeOwned>(
    parts: &Parts<'_>,
    make: fn(T) -> Operate,
) -> Result<Parsed, RouteError> {
    json(parts).map(|body| operation(make(body)))
}

fn metadata<T: DeserializeOwned>(
    parts: &Parts<'_>,
    make: fn(T) -> Metadata,
) -> Result<Parsed, RouteError> {
    json(parts).map(|body| Parsed::Command(Command::Metadata(make(body))))
}

fn id<'r>(parts: &Parts<'r>) -> Result<&'r str, RouteError> {
    match parts.tail.first() {
        None | Some(&"") => Err(RouteError::EmptyId),
        Some(id) if id.chars().all(|c| c == '_' || c.is_alphanumeric()) => Ok(id),
        Some(_) => Err(RouteError::Id),
    }
}

/// Parses a body whose id must equal the id in the path.
fn identified<T: DeserializeOwned, C>(
    parts: &Parts<'_>,
    make: fn(T) -> C,
    id_of: fn(&T) -> &str,
    wrap: fn(C) -> Parsed,
) -> Result<Parsed, RouteError> {
    let id = id(parts)?;
    let body: T = json(parts)?;
    match id_of(&body) == id {
        true => Ok(wrap(make(body))),
        false => Err(RouteError::Body(
            "The id from the path does not match the id from the body!",
        )),
    }
}

fn unplug(parts: &Parts<'_>, kind: Pluggable) -> Result<Parsed, RouteError> {
    Ok(operation(Operate::Unplug(kind, id(parts)?.to_owned())))
}

fn get_balloon(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    match parts.tail.as_slice() {
        [] => query(Query::Balloon),
        ["statistics", ..] => query(Query::BalloonStats),
        ["hinting", "status", ..] => query(Query::HintingStatus),
        ["hinting", rest @ ..] => Err(RouteError::Tail(format!(
            "Unrecognized GET request path `/hinting/{}`.",
            rest.first().unwrap_or(&"")
        ))),
        [other, ..] => Err(RouteError::Tail(format!(
            "Unrecognized GET request path `{other}`."
        ))),
    }
}

fn patch_balloon(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    match parts.tail.as_slice() {
        ["hinting", "start", ..] => match parts.body {
            [] => Ok(operation(Operate::HintingStart(HintingStart::default()))),
            _ => operate(parts, Operate::HintingStart),
        },
        ["hinting", "stop", ..] => Ok(operation(Operate::HintingStop)),
        ["hinting", rest @ ..] => Err(RouteError::Tail(format!(
            "Unrecognized PATCH request path `/hinting/{}`.",
            rest.first().unwrap_or(&"")
        ))),
        _ if parts.body.is_empty() => Err(RouteError::Body("Empty PATCH request.")),
        ["statistics", ..] => operate(parts, Operate::BalloonStats),
        _ => operate(parts, Operate::Balloon),
    }
}

fn put_action(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    let action: Action = json(parts)?;
    Ok(match action.action_type {
        ActionType::InstanceStart => Parsed::Command(Command::Start),
        ActionType::FlushMetrics => operation(Operate::FlushMetrics),
        ActionType::SendCtrlAltDel => operation(Operate::SendCtrlAltDel),
        ActionType::PowerButton => operation(Operate::PowerButton),
    })
}

fn put_mmds(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    match parts.tail.first() {
        None => metadata(parts, Metadata::Put),
        Some(other) => Err(RouteError::Tail(format!(
            "Unrecognized PUT request path `{other}`."
        ))),
    }
}

fn put_snapshot(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    match parts.tail.first() {
        None => Err(RouteError::Body("Missing snapshot operation type.")),
        Some(&"create") => operate(parts, Operate::CreateSnapshot),
        Some(&"load") => {
            let load: SnapshotLoad = json(parts)?;
            load.validate().map_err(serde_json::Error::custom)?;
            Ok(Parsed::Command(Command::LoadSnapshot(Box::new(load))))
        }
        Some(other) => Err(RouteError::Path {
            method: Method::Put.name(),
            path: format!("/snapshot/{other}"),
        }),
    }
}

fn patch_machine(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    let update: MachineConfigUpdate = json(parts)?;
    match update.is_empty() {
        true => Err(RouteError::Body("Empty PATCH request.")),
        false => Ok(Parsed::Command(Command::UpdateMachine(update))),
    }
}

fn patch_vm(parts: &Parts<'_>) -> Result<Parsed, RouteError> {
    let update: VmUpdate = json(parts)?;
    Ok(operation(match update.state {
        RunState::Paused => Operate::Pause,
        RunState::Resumed => Operate::Resume,
    }))
}

#[cfg(test)]
#[path = "routes_test.rs"]
mod routes_test;

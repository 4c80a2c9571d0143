//! Compiles lists to BPF programs, which the kernel runs before each system call.

use super::rules::{Action, Condition, List, Op, Rule};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The programs of a thread. The kernel runs all of them, and the strictest result counts.
pub type Programs = Vec<BpfProgram>;

/// The rules of each call, by its number. An empty list means any arguments.
type Calls = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiles `lists` into programs for the process `pid`. The default action is that of the first list.
///
/// # Errors
/// A program is too long for the kernel.
pub fn compile(lists: &[&List], pid: u32) -> Result<Programs, seccompiler::BackendError> {
    let rules = || lists.iter().flat_map(|list| &list.rules);
    let action = lists.first().map(|list| list.default_action);
    let mut programs = Programs::new();

    // A program has one action for the calls it lists, so each error number needs a program of its own. These come first,
    // because the main program forbids to add any.
    let mut errors: Vec<u16> = rules().filter_map(|rule| rule.errno).collect();
    errors.sort_unstable();
    errors.dedup();
    for errno in errors {
        let calls = calls(rules().filter(|rule| rule.errno == Some(errno)), pid)?;
        let answer = SeccompAction::Errno(errno.into());
        programs.push(program(calls, SeccompAction::Allow, answer)?);
    }
    let refused = match action.unwrap_or_default() {
        Action::Trap => SeccompAction::Trap,
        Action::KillProcess => SeccompAction::KillProcess,
        Action::Log => SeccompAction::Log,
    };
    programs.push(program(
        calls(rules(), pid)?,
        refused,
        SeccompAction::Allow,
    )?);
    Ok(programs)
}

fn program(
    calls: Calls,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(calls, others, listed, TargetArch::x86_64)?.try_into()
}

fn calls<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    pid: u32,
) -> Result<Calls, seccompiler::BackendError> {
    let mut calls = BTreeMap::<i64, Option<Vec<SeccompRule>>>::new();
    for rule in rules {
        let ways = calls
            .entry(rule.syscall.0.id().into())
            .or_insert_with(|| Some(Vec::new()));
        if rule.args.is_empty() {
            // A rule for any arguments includes the other rules.
            *ways = None;
        }
        if let Some(ways) = ways {
            let conditions = rule.args.iter().map(|args| condition(args, pid));
            ways.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
        }
    }
    let ways = calls.into_iter();
    Ok(ways
        .map(|(call, ways)| (call, ways.unwrap_or_default()))
        .collect())
}

fn condition(
    condition: &Condition,
    pid: u32,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    let len = match condition.wide {
        true => SeccompCmpArgLen::Qword,
        false => SeccompCmpArgLen::Dword,
    };
    let op = match condition.op {
        Op::Eq => SeccompCmpOp::Eq,
        Op::Ne => SeccompCmpOp::Ne,
        Op::Lt => SeccompCmpOp::Lt,
        Op::Le => SeccompCmpOp::Le,
        Op::Gt => SeccompCmpOp::Gt,
        Op::Ge => SeccompCmpOp::Ge,
        Op::MaskedEq => SeccompCmpOp::MaskedEq(condition.mask),
    };
    SeccompCondition::new(condition.index, len, op, condition.value.in_process(pid))
}

#[cfg(test)]
#[path = "compile_test.rs"]
mod compile_test;

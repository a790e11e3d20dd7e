//! Which functions were open when a run trapped.
//!
//! The interpreter does not say. So the run is made once more, on a copy of the module that tells the host of each call
//! ([`instrument`]); it is the same calculation, and ends in the same place. The copy is compiled at the first trap.

mod instrument;
mod names;

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_core::Event;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Error, Linker};

use crate::function::{End, Function};
use crate::host::{Host, Shared, Stop};
use crate::load;
use crate::reads::Reads;
use crate::trap::{Trap, TrapKind};

/// Most frames that are shown: the innermost and, of a deep one, the outermost.
pub const MAX_FRAMES: usize = 32;

/// Of a deep backtrace, how many of the outermost frames are shown.
const OUTERMOST: usize = 8;

/// Longest name that is shown, in bytes; longer ones are cut.
pub const MAX_NAME_BYTES: usize = 120;

/// Calls of a run that are followed.
const MAX_CALLS: u64 = 1_000_000;

/// Parameters of all functions together, each of which is an instruction more; what compilers make has a few each.
const MAX_PARAMETERS: u64 = 200_000;

/// Calls that may be open in the copy: each is two there, and telling is one more.
const fn depth_of_copy(depth: usize) -> usize {
    depth.saturating_mul(2).saturating_add(8)
}

/// Calls that may be open in what was copied.
const fn depth_of_original(depth: usize) -> usize {
    depth.saturating_sub(8) / 2
}

/// The copy spends fuel on telling as well, at most some ten units a call.
const FUEL_FACTOR: u64 = 16;

/// What a run tells of its calls.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Functions that are open, by their numbers in the module.
    open: Vec<u32>,
    calls: u64,
}

/// Defines what the copy of a module imports beside.
pub(crate) fn link(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    linker
        .func_wrap(
            instrument::NAMESPACE,
            instrument::ENTER,
            |mut env: Caller<'_, Host>, function: u32| -> Result<(), Error> {
                let host = env.data_mut();
                let (depth, trace) = (host.shared.limits.call_depth, &mut host.trace);
                if trace.open.len() >= depth_of_original(depth) {
                    return Err(Error::host(Stop::Trap(TrapKind::StackOverflow, "too many open calls".to_owned())));
                }
                if trace.calls >= MAX_CALLS {
                    return Err(Error::host(Stop::Trap(TrapKind::EngineFault, "too many calls".to_owned())));
                }
                trace.calls += 1;
                trace.open.push(function);
                Ok(())
            },
        )?
        .func_wrap(instrument::NAMESPACE, instrument::LEAVE, |mut env: Caller<'_, Host>| {
            env.data_mut().trace.open.pop();
        })?;
    Ok(())
}

/// The copy of a function that tells of its calls; the error is for a person.
pub(crate) fn traced(shared: &Shared, wasm: &[u8]) -> Result<Function, String> {
    let copy = instrument::instrument(wasm, MAX_PARAMETERS)?;
    let mut limits = shared.limits.clone();
    limits.call_depth = depth_of_copy(limits.call_depth);
    limits.stack_bytes = limits.stack_bytes.saturating_mul(3);
    let identity = shared.identity.clone();
    let (permissions, config, extism) = (shared.permissions.clone(), shared.config.clone(), shared.extism.clone());
    let secrets = shared.secrets.clone();
    load::copy(Arc::new(Shared { identity, limits, permissions, config, secrets, extism }), &copy)
}

impl Function {
    /// The functions that are open when this event traps, a line for each, the innermost first; at most [`MAX_FRAMES`],
    /// and one for those left out. What there is to say of it stands in a last line in parentheses.
    ///
    /// Gives the function the event once more, with the same state and seed as when it trapped. Costs more than a run: at
    /// the first trap of a function, the time of loading it; then a step out of the interpreter and back for each of its calls.
    pub fn backtrace(&self, event: &Event, reads: &mut dyn Reads, seed: u64, trapped: &Trap) -> Vec<String> {
        let none = |why: &str| vec![format!("(no backtrace: {why})")];
        let wasm = match self.wasm() {
            Ok(wasm) => wasm,
            Err(why) => return none(&why),
        };
        let traced = match self.traced(&wasm) {
            Ok(traced) => traced,
            Err(why) => return none(why),
        };
        // Telling takes fuel: what ran out of it does so earlier in the copy, and all else later than it trapped.
        let fuel = self.limits().fuel;
        let fuel = if trapped.kind == TrapKind::OutOfFuel { fuel } else { fuel.saturating_mul(FUEL_FACTOR) };
        let (ended, live) = traced.start(event, reads, seed, fuel);
        let trace = live.store.into_data().trace;
        let note = match ended {
            Err(End::Failed(trap)) if trap.kind == trapped.kind && trace.open.is_empty() => {
                Some("(none: it failed when no function was open)".to_owned())
            }
            Err(End::Failed(trap)) if trap.kind == trapped.kind => None,
            Err(End::Failed(_)) if trace.calls >= MAX_CALLS => {
                Some(format!("(after {MAX_CALLS} calls; later ones are not followed)"))
            }
            Err(End::Failed(trap)) => Some(format!("(of a run that ended otherwise: {trap})")),
            Err(End::Abandoned(error)) => Some(format!("(of a run that did not come to its end: {error})")),
            Ok(()) => Some("(none: once more, it did not trap)".to_owned()),
        };
        let mut lines = frames(&trace.open, &wasm);
        lines.extend(note);
        lines
    }
}

fn frames(open: &[u32], wasm: &[u8]) -> Vec<String> {
    // Innermost first.
    let (shown, left_out) = match open.len().checked_sub(MAX_FRAMES) {
        None | Some(0) => (open.iter().rev().copied().collect::<Vec<_>>(), 0),
        Some(left_out) => {
            let inner = open.iter().rev().take(MAX_FRAMES - OUTERMOST);
            (inner.chain(open[..OUTERMOST].iter().rev()).copied().collect(), left_out)
        }
    };
    let names = names::of(wasm, &shown.iter().copied().collect::<BTreeSet<_>>());
    let mut lines: Vec<String> =
        shown.iter().map(|at| names.get(at).cloned().unwrap_or_else(|| format!("func[{at}]"))).collect();
    if left_out > 0 {
        lines.insert(MAX_FRAMES - OUTERMOST, format!("({left_out} more)"));
    }
    lines
}

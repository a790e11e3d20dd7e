//! What a plug-in imports: how each call crosses the boundary. What it does is in [`Kernel`] and in [`Host`].

use function_abi::LogLevel;
use wasmi::errors::LinkerError;
use wasmi::{AsContextMut, Caller, Error, FuncType, Linker, Module, ValType};

use super::kernel::{Bad, Kernel, Refused};
use super::{NAMESPACE, kernel_room};
use crate::error::LoadCause;
use crate::fuel::{MEMORY_BYTES_PER_UNIT, PER_ACCESS, PER_CALL};
use crate::host::{Answer, Host, Stop};
use crate::imports::{charge, memory, units};
use crate::load::check_import;
use crate::trap::TrapKind;

/// What `get_log_level` answers: a plug-in need not make lines that say less. 0 trace, 1 debug, 2 info, 3 warn, 4 error.
const LEAST_LOG_LEVEL: i32 = 1;

const I32: ValType = ValType::I32;
const I64: ValType = ValType::I64;

/// Every import: its name, what it takes, and what it answers. All but numbers and lengths are addresses.
const IMPORTS: [(&str, &[ValType], &[ValType]); 26] = [
    ("input_length", &[], &[I64]),
    ("input_offset", &[], &[I64]),
    ("input_load_u8", &[I64], &[I32]),
    ("input_load_u64", &[I64], &[I64]),
    ("alloc", &[I64], &[I64]),
    ("free", &[I64], &[]),
    ("length", &[I64], &[I64]),
    ("length_unsafe", &[I64], &[I64]),
    ("load_u8", &[I64], &[I32]),
    ("load_u64", &[I64], &[I64]),
    ("store_u8", &[I64, I32], &[]),
    ("store_u64", &[I64, I64], &[]),
    ("output_set", &[I64, I64], &[]),
    ("error_set", &[I64], &[]),
    ("config_get", &[I64], &[I64]),
    ("var_get", &[I64], &[I64]),
    ("var_set", &[I64, I64], &[]),
    ("log_trace", &[I64], &[]),
    ("log_debug", &[I64], &[]),
    ("log_info", &[I64], &[]),
    ("log_warn", &[I64], &[]),
    ("log_error", &[I64], &[]),
    ("get_log_level", &[], &[I32]),
    ("http_request", &[I64, I64], &[I64]),
    ("http_status_code", &[], &[I32]),
    ("http_headers", &[], &[I64]),
];

/// Whether a plug-in imports only what is here.
pub(crate) fn check(module: &Module) -> Result<(), LoadCause> {
    for import in module.imports() {
        let name = import.name().to_owned();
        if import.module() != NAMESPACE {
            return Err(LoadCause::ForeignPluginImport { module: import.module().to_owned(), name });
        }
        let Some((_, params, answers)) = IMPORTS.iter().find(|known| known.0 == name) else {
            return Err(LoadCause::UnknownPluginImport { name });
        };
        check_import(name, FuncType::new(params.iter().copied(), answers.iter().copied()), import.ty())?;
    }
    Ok(())
}

type Env<'a> = Caller<'a, Host>;

/// Defines all of [`IMPORTS`].
pub(crate) fn link(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    link_memory(linker)?;
    link_values(linker)?;
    link_logs(linker)?;
    link_http(linker)
}

/// The kernel's memory: access by access, for that is how plug-ins copy.
fn link_memory(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    linker
        .func_wrap(NAMESPACE, "input_length", |mut env: Env<'_>| -> Result<u64, Error> {
            access(&mut env, "input_length", |kernel| Ok(kernel.input().len() as u64))
        })?
        .func_wrap(NAMESPACE, "input_offset", |mut env: Env<'_>| -> Result<u64, Error> {
            access(&mut env, "input_offset", |kernel| Ok(kernel.input().start as u64))
        })?
        .func_wrap(NAMESPACE, "input_load_u8", |mut env: Env<'_>, at: u64| -> Result<u32, Error> {
            access(&mut env, "input_load_u8", |kernel| Ok(kernel.load_input::<1>(at) as u32))
        })?
        .func_wrap(NAMESPACE, "input_load_u64", |mut env: Env<'_>, at: u64| -> Result<u64, Error> {
            access(&mut env, "input_load_u64", |kernel| Ok(kernel.load_input::<8>(at)))
        })?
        .func_wrap(NAMESPACE, "alloc", |mut env: Env<'_>, len: u64| -> Result<u64, Error> {
            place(&mut env, |kernel, allowed| kernel.alloc(len, allowed)).map_err(Error::host)
        })?
        .func_wrap(NAMESPACE, "free", |mut env: Env<'_>, at: u64| -> Result<(), Error> {
            access(&mut env, "free", |kernel| {
                kernel.free(at);
                Ok(())
            })
        })?
        .func_wrap(NAMESPACE, "length", |mut env: Env<'_>, at: u64| -> Result<u64, Error> {
            access(&mut env, "length", |kernel| Ok(kernel.length(at)))
        })?
        .func_wrap(NAMESPACE, "length_unsafe", |mut env: Env<'_>, at: u64| -> Result<u64, Error> {
            access(&mut env, "length_unsafe", |kernel| Ok(kernel.length(at)))
        })?
        .func_wrap(NAMESPACE, "load_u8", |mut env: Env<'_>, at: u64| -> Result<u32, Error> {
            access(&mut env, "load_u8", |kernel| kernel.load::<1>(at).map(|byte| byte as u32))
        })?
        .func_wrap(NAMESPACE, "load_u64", |mut env: Env<'_>, at: u64| -> Result<u64, Error> {
            access(&mut env, "load_u64", |kernel| kernel.load::<8>(at))
        })?
        .func_wrap(NAMESPACE, "store_u8", |mut env: Env<'_>, at: u64, value: u32| -> Result<(), Error> {
            access(&mut env, "store_u8", |kernel| kernel.store::<1>(at, u64::from(value)))
        })?
        .func_wrap(NAMESPACE, "store_u64", |mut env: Env<'_>, at: u64, value: u64| -> Result<(), Error> {
            access(&mut env, "store_u64", |kernel| kernel.store::<8>(at, value))
        })?
        .func_wrap(NAMESPACE, "output_set", |mut env: Env<'_>, at: u64, len: u64| -> Result<(), Error> {
            access(&mut env, "output_set", |kernel| kernel.set_output(at, len))
        })?
        .func_wrap(NAMESPACE, "error_set", |mut env: Env<'_>, at: u64| -> Result<(), Error> {
            access(&mut env, "error_set", |kernel| kernel.set_error(at))
        })?;
    Ok(())
}

/// Configuration and variables, which are our state. Keys and values belong to the host once they are given.
fn link_values(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    linker
        .func_wrap(NAMESPACE, "config_get", |mut env: Env<'_>, key: u64| -> Result<u64, Error> {
            config_get(&mut env, key).map_err(Error::host)
        })?
        .func_wrap(NAMESPACE, "var_get", |mut env: Env<'_>, key: u64| -> Result<u64, Error> {
            var_get(&mut env, key).map_err(Error::host)
        })?
        .func_wrap(NAMESPACE, "var_set", |mut env: Env<'_>, key: u64, value: u64| -> Result<(), Error> {
            let mut set = || {
                let name = take(&mut env, "var_set", key)?;
                if value == 0 {
                    return env.data_mut().state_delete(&name);
                }
                let value = take(&mut env, "var_set", value)?;
                env.data_mut().state_put("var_set", &name, &value, None)
            };
            set().map_err(Error::host)
        })?;
    Ok(())
}

fn link_logs(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    const LEVELS: [(&str, LogLevel); 5] = [
        ("log_trace", LogLevel::Debug),
        ("log_debug", LogLevel::Debug),
        ("log_info", LogLevel::Info),
        ("log_warn", LogLevel::Warn),
        ("log_error", LogLevel::Error),
    ];
    for (name, level) in LEVELS {
        linker.func_wrap(NAMESPACE, name, move |mut env: Env<'_>, text: u64| -> Result<(), Error> {
            let mut log = || {
                let text = take(&mut env, name, text)?;
                env.data_mut().log("log", level as i32, &text, &[])
            };
            log().map_err(Error::host)
        })?;
    }
    linker.func_wrap(NAMESPACE, "get_log_level", |mut env: Env<'_>| -> Result<i32, Error> {
        access(&mut env, "get_log_level", |_| Ok(LEAST_LOG_LEVEL))
    })?;
    Ok(())
}

/// There for plug-ins whose PDK imports them always.
fn link_http(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    linker
        .func_wrap(NAMESPACE, "http_request", |_: Env<'_>, _: u64, _: u64| -> Result<u64, Error> {
            let what = "http_request: a function may not wait, so a plug-in cannot make requests; let it put out what is \
                        to be sent, and send it from elsewhere";
            Err(Error::host(Stop::Trap(TrapKind::NotAllowed, what.to_owned())))
        })?
        .func_wrap(NAMESPACE, "http_status_code", |mut env: Env<'_>| -> Result<i32, Error> {
            access(&mut env, "http_status_code", |_| Ok(0))
        })?
        .func_wrap(NAMESPACE, "http_headers", |mut env: Env<'_>| -> Result<u64, Error> {
            access(&mut env, "http_headers", |_| Ok(0))
        })?;
    Ok(())
}

/// A call that does nothing but look at the kernel's memory, or change some bytes of it.
fn access<T>(env: &mut Env<'_>, import: &str, act: impl FnOnce(&mut Kernel) -> Result<T, Bad>) -> Result<T, Error> {
    charge(&mut *env, PER_ACCESS).map_err(Error::host)?;
    let host = env.data_mut();
    act(&mut host.kernel).map_err(|bad| Error::host(explain(host, import, bad)))
}

/// The bytes of a block that is given away.
fn take(env: &mut Env<'_>, import: &str, at: u64) -> Result<Vec<u8>, Stop> {
    let host = env.data();
    let bytes = host.kernel.block(at).map_err(|bad| explain(host, import, bad))?.to_vec();
    charge(&mut *env, PER_CALL + units(bytes.len()))?;
    env.data_mut().kernel.free(at);
    Ok(bytes)
}

fn config_get(env: &mut Env<'_>, key: u64) -> Result<u64, Stop> {
    let key = take(env, "config_get", key)?;
    let value = env.data().config(&key)?.map(|value| value.as_bytes().to_vec());
    give(env, value.as_deref())
}

fn var_get(env: &mut Env<'_>, key: u64) -> Result<u64, Stop> {
    let key = take(env, "var_get", key)?;
    let value = env.data_mut().state(&key, Answer::Block)?.map(<[u8]>::to_vec);
    give(env, value.as_deref())
}

/// A block with a value, or 0.
fn give(env: &mut Env<'_>, value: Option<&[u8]>) -> Result<u64, Stop> {
    let own = memory(env).map_or(0, |memory| memory.data_size(&*env));
    answer(env, own, value)
}

/// Answers the `var_get` that waits: a block with the value, or 0.
pub(crate) fn answer(mut ctx: impl AsContextMut<Data = Host>, own: usize, value: Option<&[u8]>) -> Result<u64, Stop> {
    let Some(value) = value else { return Ok(0) };
    charge(ctx.as_context_mut(), units(value.len()))?;
    place_beside(ctx, own, |kernel, allowed| kernel.place(value, allowed))
}

/// Makes a block beside the plug-in's own memory; answers 0 if there is no room, as the interface has it.
fn place(
    env: &mut Env<'_>,
    make: impl FnOnce(&mut Kernel, usize) -> Result<(u64, usize), Refused>,
) -> Result<u64, Stop> {
    let own = memory(env).map_or(0, |memory| memory.data_size(&*env));
    place_beside(env, own, make)
}

fn place_beside(
    mut ctx: impl AsContextMut<Data = Host>,
    own: usize,
    make: impl FnOnce(&mut Kernel, usize) -> Result<(u64, usize), Refused>,
) -> Result<u64, Stop> {
    charge(ctx.as_context_mut(), PER_ACCESS)?;
    let mut context = ctx.as_context_mut();
    let host = context.data_mut();
    let allowed = kernel_room(host, own);
    match make(&mut host.kernel, allowed) {
        Ok((at, work)) => {
            charge(context, work as u64 / MEMORY_BYTES_PER_UNIT)?;
            Ok(at)
        }
        Err(refused) => {
            host.refuse(refused.size.saturating_add(own));
            Ok(0)
        }
    }
}

/// Names what a plug-in did wrong. One that was refused memory and goes on as if it had it ran out of memory.
fn explain(host: &Host, import: &str, bad: Bad) -> Stop {
    if let Some(what) = host.refusal() {
        return Stop::Trap(TrapKind::OutOfMemory, what);
    }
    let what = match bad {
        Bad::Range { at, len, size } => format!(
            "{import}: the {len} bytes at {at} are not in the memory of the Extism kernel, which has {size} bytes"
        ),
        Bad::NoBlock(at) => format!("{import}: no block of the Extism kernel's memory begins at {at}"),
    };
    Stop::Trap(TrapKind::BadPointer, what)
}

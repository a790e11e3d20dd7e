//! The `#[function]` attribute of `function-sdk`; see there.

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, Type};

/// Makes a plain Rust function the handler of a gateway function.
///
/// It has the form `fn NAME(event: impl FromEvent, cx: &mut Context) -> Result`, is neither `async` nor generic, and
/// there is one in a crate. The attribute leaves it as it is and adds
///
/// - `NAME_handler`, which reads the event and calls it: what `testing::Gateway::new` takes;
/// - when compiled to Wasm, the export `edge_handle`.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as ItemFn);
    let arguments = proc_macro2::TokenStream::from(arguments);
    if !arguments.is_empty() {
        let error =
            Error::new(arguments.span(), "#[function] takes no arguments; what it may do stands in function.toml");
        return with_item(&item, &error);
    }
    match check(&item) {
        Ok(()) => expand(&item).into(),
        Err(error) => with_item(&item, &error),
    }
}

/// The errors, and the item itself, so that the compiler does not also complain that it is missing.
fn with_item(item: &ItemFn, error: &Error) -> TokenStream {
    let errors = error.to_compile_error();
    quote!(#item #errors).into()
}

fn expand(item: &ItemFn) -> proc_macro2::TokenStream {
    let (name, visibility) = (&item.sig.ident, &item.vis);
    let handler = format_ident!("{name}_handler");
    let doc = format!("Reads the event and calls [`{name}`]: what `function_sdk::testing::Gateway::new` takes.");
    quote! {
        #item

        #[doc = #doc]
        #[allow(dead_code)]
        #visibility fn #handler(cx: &mut ::function_sdk::Context<'_>) -> ::function_sdk::Result {
            let event = ::function_sdk::FromEvent::from_event(cx.event())?;
            ::core::result::Result::map_err(#name(event, cx), ::core::convert::From::from)
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn edge_handle(event: usize, len: usize) -> i32 {
                ::function_sdk::__handle(event, len, #handler)
            }
        };
    }
}

fn check(item: &ItemFn) -> Result<(), Error> {
    let sig = &item.sig;
    let mut errors = Vec::new();
    let mut refuse = |span, message: &str| errors.push(Error::new(span, message));
    if let Some(token) = &sig.asyncness {
        refuse(token.span(), "a function never waits, so its handler is not async: read, list effects, return");
    }
    if let Some(token) = &sig.unsafety {
        refuse(token.span(), "the handler is called from safe code, so it is not unsafe");
    }
    if let Some(abi) = &sig.abi {
        refuse(abi.span(), "the handler is a plain Rust function; the attribute adds the export");
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        let span = sig.generics.params.first().map_or(sig.ident.span(), Spanned::span);
        refuse(span, "the handler has no generic parameters: the gateway could not choose them");
    }
    for input in &sig.inputs {
        if let FnArg::Receiver(receiver) = input {
            refuse(receiver.span(), "the handler is a free function, without self");
        }
    }
    match sig.inputs.len() {
        2 => {
            if let FnArg::Typed(context) = &sig.inputs[1]
                && !matches!(&*context.ty, Type::Reference(reference) if reference.mutability.is_some())
            {
                refuse(context.ty.span(), "the second parameter is `cx: &mut Context`");
            }
        }
        count => {
            let message = format!(
                "the handler takes two parameters, the event (such as `reading: Json<Reading>`) and `cx: &mut Context`; \
                 this one has {count}"
            );
            // At the first one too many, else behind the name.
            refuse(sig.inputs.iter().nth(2).map_or(sig.paren_token.span.join(), Spanned::span), &message);
        }
    }
    if let ReturnType::Default = sig.output {
        refuse(sig.ident.span(), "the handler returns `function_sdk::Result`");
    }
    match errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    }) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(source: &str) -> Vec<String> {
        let item = syn::parse_str::<ItemFn>(source).unwrap();
        check(&item).err().map_or(Vec::new(), |error| error.into_iter().map(|error| error.to_string()).collect())
    }

    #[test]
    fn handlers_of_the_right_form_pass() {
        for source in [
            "fn f(x: Json<HashMap<String, f64>>, cx: &mut Context) -> Result { Ok(()) }",
            "pub fn f(Json(x): Json<X>, cx: &mut function_sdk::Context<'_>) -> Result<(), MyError> { Ok(()) }",
            "fn f(_: &[u8], _: &mut Context) -> Result { Ok(()) }",
        ] {
            assert_eq!(errors(source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn every_mistake_in_a_signature_is_named() {
        let found = errors("async unsafe fn f<T>(x: T) {}");
        assert_eq!(found.len(), 5, "{found:?}");
        for (source, part) in [
            ("fn f() -> Result { Ok(()) }", "this one has 0"),
            ("fn f(a: A, cx: &mut Context, b: B) -> Result { Ok(()) }", "this one has 3"),
            ("fn f(a: A, cx: &Context) -> Result { Ok(()) }", "`cx: &mut Context`"),
            ("fn f(a: A, cx: Context) -> Result { Ok(()) }", "`cx: &mut Context`"),
            ("fn f(&self, cx: &mut Context) -> Result { Ok(()) }", "without self"),
            ("extern \"C\" fn f(a: A, cx: &mut Context) -> Result { Ok(()) }", "plain Rust function"),
            ("fn f(a: A, cx: &mut Context) {}", "returns `function_sdk::Result`"),
        ] {
            let found = errors(source);
            assert!(found.len() == 1 && found[0].contains(part), "{source}: {found:?}");
        }
    }
}

//! Writes, for each service of the descriptors: `impl Trait for Layered<S, L>`, `RemoteX` (the trait over a tonic
//! channel), `direct_x`, `remote_x` and `serve_x`; and the enum `Rpc` of all methods.

use std::collections::BTreeSet;
use std::fmt::Write;

use tonic_prost_build::FileDescriptorSet;

struct Method {
    /// As in the .proto file.
    name: String,
    /// As the trait calls it.
    function: String,
    input: String,
    output: String,
    sends_stream: bool,
    returns_stream: bool,
}

struct Service {
    name: String,
    /// Of tonic's generated modules and of our functions.
    module: String,
    methods: Vec<Method>,
}

impl Service {
    fn server_trait(&self) -> String {
        format!("v1::{}_server::{}", self.module, self.name)
    }

    /// The trait with its stream types fixed: what makes it usable as `dyn`.
    fn fixed_trait(&self) -> String {
        let streams: Vec<_> = self
            .methods
            .iter()
            .filter(|m| m.returns_stream)
            .map(|m| format!("{}Stream = BoxStream<{}>", m.name, m.output))
            .collect();
        if streams.is_empty() {
            self.server_trait()
        } else {
            format!("{}<{}>", self.server_trait(), streams.join(", "))
        }
    }
}

impl Method {
    fn request(&self) -> String {
        if self.sends_stream { format!("Streaming<{}>", self.input) } else { self.input.clone() }
    }

    fn reply(&self) -> String {
        if self.returns_stream { format!("Self::{}Stream", self.name) } else { self.output.clone() }
    }
}

/// The text of `bindings.rs`.
pub fn generate(descriptors: &FileDescriptorSet) -> String {
    let services = services(descriptors);
    let mut out = String::new();
    // Writing to a String never fails.
    let _ = write_rpcs(&mut out, &services);
    let _ = write_payloads(&mut out, &services);
    for service in &services {
        let _ = write_layered(&mut out, service);
        let _ = write_remote(&mut out, service);
        let _ = write_constructors(&mut out, service);
    }
    out
}

fn services(descriptors: &FileDescriptorSet) -> Vec<Service> {
    let declared = descriptors.file.iter().flat_map(|file| &file.service);
    declared
        .map(|service| Service {
            name: service.name().to_owned(),
            module: snake(service.name()),
            methods: service
                .method
                .iter()
                .map(|method| Method {
                    name: method.name().to_owned(),
                    function: snake(method.name()),
                    input: message(method.input_type()),
                    output: message(method.output_type()),
                    sends_stream: method.client_streaming(),
                    returns_stream: method.server_streaming(),
                })
                .collect(),
        })
        .collect()
}

/// `.haystore.v1.ReadItem` becomes `v1::ReadItem`.
fn message(full_name: &str) -> String {
    format!("v1::{}", full_name.rsplit('.').next().unwrap_or(full_name))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn write_rpcs(out: &mut String, services: &[Service]) -> std::fmt::Result {
    let all: Vec<_> = services.iter().flat_map(|s| s.methods.iter().map(move |m| (s, m))).collect();
    let names = |f: &dyn Fn(&Service, &Method) -> String| {
        all.iter().map(|(s, m)| f(s, m)).collect::<Vec<_>>().join("\n        ")
    };
    let variants = names(&|s, m| format!("/// `{}.{}`\n        {}{},", s.name, m.name, s.name, m.name));
    let list = names(&|s, m| format!("Self::{}{},", s.name, m.name));
    let services_of = names(&|s, m| format!("Self::{}{} => {:?},", s.name, m.name, s.module));
    let names_of = names(&|s, m| format!("Self::{}{} => {:?},", s.name, m.name, m.function));
    writeln!(
        out,
        "/// Every method of every inner service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rpc {{
        {variants}
        }}
        impl Rpc {{
            /// All of them, each at its index.
            pub const ALL: &'static [Rpc] = &[{list}];
            /// The service, in snake case.
            pub fn service(self) -> &'static str {{ match self {{ {services_of} }} }}
            /// The method, in snake case.
            pub fn name(self) -> &'static str {{ match self {{ {names_of} }} }}
        }}"
    )
}

/// The size of each message is known to the wrapper; streams are covered where they are wrapped.
fn write_payloads(out: &mut String, services: &[Service]) -> std::fmt::Result {
    let methods = services.iter().flat_map(|s| &s.methods);
    let messages: BTreeSet<_> = methods.flat_map(|m| [&m.input, &m.output]).collect();
    for message in messages {
        writeln!(out, "impl Payload for {message} {{ fn size(&self) -> usize {{ self.encoded_len() }} }}")?;
    }
    Ok(())
}

fn write_stream_types(out: &mut String, service: &Service) -> std::fmt::Result {
    for m in service.methods.iter().filter(|m| m.returns_stream) {
        writeln!(out, "    type {}Stream = BoxStream<{}>;", m.name, m.output)?;
    }
    Ok(())
}

fn write_signature(out: &mut String, m: &Method) -> std::fmt::Result {
    writeln!(
        out,
        "    async fn {}(&self, request: Request<{}>) -> Result<Response<{}>, Status> {{",
        m.function,
        m.request(),
        m.reply()
    )
}

fn write_layered(out: &mut String, service: &Service) -> std::fmt::Result {
    writeln!(
        out,
        "#[tonic::async_trait]\nimpl<S: {} + ?Sized, L: Layer> {} for Layered<S, L> {{",
        service.fixed_trait(),
        service.server_trait()
    )?;
    write_stream_types(out, service)?;
    for m in &service.methods {
        write_signature(out, m)?;
        writeln!(
            out,
            "        self.layer.around(Rpc::{}{}, request, |request| self.inner.{}(request)).await\n    }}",
            service.name, m.name, m.function
        )?;
    }
    writeln!(out, "}}")
}

fn write_remote(out: &mut String, service: &Service) -> std::fmt::Result {
    let Service { name, module, .. } = service;
    let client = format!("v1::{module}_client::{name}Client<Channel>");
    let streams = service.methods.iter().any(|m| m.sends_stream || m.returns_stream);
    let (bulk_field, bulk_init, bulk) = if streams {
        (format!(", bulk: {client}"), ", bulk: client(bulk)", "bulk")
    } else {
        (String::new(), "", "_bulk")
    };
    writeln!(
        out,
        "/// The `{name}` service at the other end of connections: streams take the bulk one.
        #[derive(Debug, Clone)]
        pub struct Remote{name} {{ small: {client}{bulk_field} }}
        impl Remote{name} {{
            /// Over `small` for unary calls and `bulk` for streams. They may be the same.
            pub fn new(small: Channel, {bulk}: Channel) -> Self {{
                let client = |channel| <{client}>::new(channel)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX);
                Self {{ small: client(small){bulk_init} }}
            }}
        }}
        #[tonic::async_trait]
        impl {} for Remote{name} {{",
        service.server_trait()
    )?;
    write_stream_types(out, service)?;
    for m in &service.methods {
        write_signature(out, m)?;
        let channel = if m.sends_stream || m.returns_stream { "bulk" } else { "small" };
        writeln!(out, "        let mut client = self.{channel}.clone();")?;
        let function = &m.function;
        match (m.sends_stream, m.returns_stream) {
            (false, false) => writeln!(out, "        client.{function}(request).await")?,
            (false, true) => writeln!(out, "        client.{function}(request).await.map(boxed)")?,
            (true, returns_stream) => {
                writeln!(out, "        let (request, failed) = outbound(request);")?;
                let map = if returns_stream { ".map(boxed)" } else { "" };
                writeln!(out, "        carry(client.{function}(request), failed).await{map}")?;
            }
        }
        writeln!(out, "    }}")?;
    }
    writeln!(out, "}}")
}

fn write_constructors(out: &mut String, service: &Service) -> std::fmt::Result {
    let Service { name, module, .. } = service;
    let fixed = service.fixed_trait();
    writeln!(
        out,
        "/// The `{name}` service in this process, called as `peer`: client layer, guard, core; no codec.
        pub fn direct_{module}<S: {fixed} + ?Sized>(core: Arc<S>, guard: Arc<Guard>, peer: Peer) -> Dyn{name} {{
            Arc::new(Layered {{ inner: core, layer: Both(Sign::in_process(peer), guard) }})
        }}
        /// The `{name}` service over connections, with `credentials`.
        pub fn remote_{module}(channels: Channels, credentials: Credentials) -> Dyn{name} {{
            let remote = Arc::new(Remote{name}::new(channels.small, channels.bulk));
            Arc::new(Layered {{ inner: remote, layer: Sign::wire(credentials) }})
        }}
        /// The `{name}` service behind its guard, to be added to a tonic server.
        pub fn serve_{module}<S: {fixed} + ?Sized>(
            core: Arc<S>, guard: Arc<Guard>,
        ) -> Gate<v1::{module}_server::{name}Server<Layered<S, Arc<Guard>>>> {{
            let service = v1::{module}_server::{name}Server::new(Layered {{ inner: core, layer: guard.clone() }})
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Gate::new(service, guard)
        }}"
    )
}

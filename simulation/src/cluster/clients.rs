//! A client of the whole cluster, as a gateway has one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hay_client::group::masters;
use hay_client::volume::Data;
use hay_client::writer::Stored;
use hay_client::{MasterClient, Places, VolumeClient, Writer};
use hay_common::error::Failure;
use hay_common::ids::{Epoch, NeedleKey, NodeId};
use hay_common::model::Codec;
use hay_common::random::SharedRandom;
use hay_proto::rpc::{Credentials, Peer, Role};

use super::World;
use super::history::{Needle, data};
use super::machines::{Machine, Process, members, peers};

pub struct Client {
    pub name: String,
    pub master: MasterClient,
    pub volumes: VolumeClient,
    writer: Writer,
    pub random: SharedRandom,
}

impl Client {
    /// For a process that starts on `machine`.
    pub fn start(world: &Arc<World>, machine: &Machine) -> Self {
        let Process { clock, random, .. } = machine.start();
        let peer = Peer { role: Role::Gateway, node: NodeId::from_random(random.u128()) };
        let credentials = Credentials::new(world.key.clone(), peer, clock.clone());
        let master = masters(members(world), &credentials, clock.clone(), random.clone());
        let master = MasterClient::start(master, clock, random.clone());
        let volumes = VolumeClient::new(peers(world, &credentials));
        let writer = Writer::new(master.clone(), volumes.clone(), random.clone());
        Self { name: machine.name.clone(), master, volumes, writer, random }
    }

    /// Stores a content as a gateway does.
    pub async fn store(&self, key: NeedleKey, length: u32) -> Result<(Needle, Epoch), Failure> {
        let Stored { volume, epoch, cookie, .. } =
            self.writer.store(key, Codec::PLAIN, data(key, length)).await?;
        Ok((Needle { volume, key, cookie, length }, epoch))
    }

    /// The bytes of a needle from the first of `places` that gives them.
    pub async fn read_at(&self, places: impl Into<Places>, needle: &Needle) -> Result<Bytes, Failure> {
        match self.volumes.read(places, needle.range()).await? {
            Data::Whole(bytes) => Ok(bytes),
            Data::Parts(mut parts) => {
                let mut whole = BytesMut::new();
                while let Some(part) = parts.next().await {
                    whole.extend_from_slice(&part?);
                }
                Ok(whole.freeze())
            }
        }
    }

    /// The same from wherever the map says that it is.
    pub async fn read(&self, needle: &Needle) -> Result<Bytes, Failure> {
        let places = self.master.locate(needle.volume).await?;
        let read = self.read_at(&places, needle).await;
        if read.is_err() {
            self.master.forget(needle.volume);
        }
        read
    }
}

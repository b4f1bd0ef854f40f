//! A client of the whole cluster, as a gateway has one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hay_client::group::masters;
use hay_client::volume::Data;
use hay_client::{MasterClient, VolumeClient};
use hay_common::error::{ErrorCode, Failure, Remedy};
use hay_common::ids::{Cookie, Epoch, NeedleKey, NodeId};
use hay_common::limits::SMALL_CONTENT_BYTES_MAX;
use hay_common::model::{Codec, SizeClass};
use hay_common::random::SharedRandom;
use hay_proto::rpc::{Credentials, Peer, Role};

use super::World;
use super::history::{Needle, data};
use super::machines::{Machine, Process, members, peers};

pub struct Client {
    pub name: String,
    pub master: MasterClient,
    pub volumes: VolumeClient,
    pub random: SharedRandom,
}

impl Client {
    /// For a process that starts on `machine`.
    pub fn start(world: &Arc<World>, machine: &Machine) -> Self {
        let Process { clock, random, .. } = machine.start();
        let peer = Peer { role: Role::Gateway, node: NodeId::from_random(random.u128()) };
        let credentials = Credentials::new(world.key.clone(), peer, clock.clone());
        let master = masters(members(world), &credentials, clock.clone(), random.clone());
        Self {
            name: machine.name.clone(),
            master: MasterClient::start(master, clock, random.clone()),
            volumes: VolumeClient::new(peers(world, &credentials)),
            random,
        }
    }

    /// Stores a content on whichever volume takes it, as a gateway does.
    pub async fn store(&self, key: NeedleKey, length: u32) -> Result<(Needle, Epoch), Failure> {
        let content = data(key, length);
        let class =
            if content.len() <= SMALL_CONTENT_BYTES_MAX { SizeClass::Small } else { SizeClass::Large };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.try_store(key, class, content.clone()).await {
                Ok((needle, epoch)) => return Ok((Needle { length, ..needle }, epoch)),
                Err(failure) => failure,
            };
            let elsewhere = matches!(failure.code.remedy(), Remedy::Refresh | Remedy::RetryLater);
            if attempt == 8 || !(elsewhere || failure.code == ErrorCode::NeedleExists) {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(10 << attempt)).await;
        }
    }

    async fn try_store(
        &self,
        key: NeedleKey,
        class: SizeClass,
        content: Bytes,
    ) -> Result<(Needle, Epoch), Failure> {
        let target = self.master.writable(class).await?;
        let (volume, cookie) = (&target.volume, Cookie(self.random.u32()));
        let stored = self.volumes.append(volume, &target.token, key, cookie, Codec::PLAIN, content).await;
        let Err(failure) = stored else {
            return Ok((Needle { volume: volume.volume, key, cookie, length: 0 }, volume.epoch));
        };
        if failure.code != ErrorCode::NeedleExists && failure.code != ErrorCode::Overloaded {
            self.master.avoid(volume.volume);
            if matches!(failure.code, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded)
                && let Some(primary) = volume.replicas.first()
            {
                self.master.avoid_server(primary);
            }
        }
        Err(failure)
    }

    /// The bytes of a needle from the first of `addresses` that gives them.
    pub async fn read_at(&self, addresses: &[String], needle: &Needle) -> Result<Bytes, Failure> {
        match self.volumes.read(addresses, needle.range()).await? {
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
        let addresses = self.master.locate(needle.volume).await?;
        let read = self.read_at(&addresses, needle).await;
        if read.is_err() {
            self.master.forget(needle.volume);
        }
        read
    }
}

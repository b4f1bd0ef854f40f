use super::*;

fn assert_send<T: Send>(_: &T) {}

/// Handlers run on any worker: every method's future must be `Send`.
#[expect(dead_code, reason = "compiled, never run")]
fn futures_are_send(
    client: &FilerClient,
    token: TokenHash,
    session: &Session,
    put: &PutFile,
    resolve: Resolve,
) {
    assert_send(&client.session());
    assert_send(&client.whoami(token));
    assert_send(&client.begin(token, session, put, None, None));
    assert_send(&client.put(token, session, put.clone(), Content::Empty));
    assert_send(&client.find_own(token, &[]));
    assert_send(&client.read_manifest(token, ManifestId::from_random(1), 0, 1));
    assert_send(&client.resolve(token, resolve));
}

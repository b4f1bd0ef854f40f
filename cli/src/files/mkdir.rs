//! `hay mkdir`.

use crate::flags::MkdirArgs;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// Makes directories, and those above them.
pub async fn make_directory(args: MkdirArgs, context: Context) -> Result<Exit, Stop> {
    let mut made = Vec::new();
    for path in &args.paths {
        let path = RemotePath::parse(path)?.as_directory();
        context.client.make_directory(&path).await.map_err(|error| Stop::from(error).about(&path.shown()))?;
        made.push(path);
    }
    if context.out.json() {
        let paths: Vec<String> = made.iter().map(|path| format!("/{}", path.as_str())).collect();
        context.out.value(&serde_json::json!({ "directories": paths }))?;
    } else {
        for path in made {
            context.out.line(path.shown())?;
        }
    }
    Ok(Exit::Ok)
}

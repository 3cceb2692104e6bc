use super::Db;
use super::database::check_name;
use crate::base::{CollectionId, Error, ErrorKind, Result};
use crate::platform;

/// Other names of collections: wherever a collection's name is taken, an alias of it will do. A collection takes its aliases along
/// when it is dropped.
impl Db {
    /// Gives `collection` another name, durably.
    ///
    /// # Errors
    /// `AlreadyExists` when a collection or an alias has that name, `NotFound` when there is no such collection,
    /// `InvalidArgument` for what could not be a collection's name.
    pub async fn create_alias(&self, alias: &str, collection: &str) -> Result<()> {
        check_name(alias)?;
        self.set_alias(alias, Some(collection), false).await
    }

    /// Has an alias name another collection from now on, durably: who asks by that name sees one or the other, never none.
    ///
    /// # Errors
    /// `NotFound` when there is no such alias or collection.
    pub async fn alter_alias(&self, alias: &str, collection: &str) -> Result<()> {
        self.set_alias(alias, Some(collection), true).await
    }

    /// Removes an alias, durably. `NotFound` when there is none of that name.
    pub async fn drop_alias(&self, alias: &str) -> Result<()> {
        self.set_alias(alias, None, true).await
    }

    /// All aliases and the names of their collections, by alias.
    pub fn aliases(&self) -> Vec<(String, String)> {
        let collections = self.inner.collections.read().expect("no panic while held");
        let aliases = collections.iter().filter(|(name, collection)| *name != collection.name());
        aliases.map(|(alias, collection)| (alias.clone(), collection.name().to_owned())).collect()
    }

    async fn set_alias(&self, alias: &str, collection: Option<&str>, there: bool) -> Result<()> {
        self.inner.shared.check_open()?;
        let (db, alias) = (self.clone(), alias.to_owned());
        let collection = collection.map(|name| self.collection(name)).transpose()?;
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            let taken = db.inner.collections.read().expect("no panic while held").get(&alias).cloned();
            match taken {
                None if there => return Err(Error::not_found(format!("no alias {alias:?}"))),
                Some(taken) if taken.name() == alias || !there => {
                    let what = if taken.name() == alias { "is a collection" } else { "is there already" };
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("alias {alias:?} {what}")));
                }
                _ => {}
            }
            if let Some(collection) = &collection
                && db.inner.collections.read().expect("no panic while held").get(collection.name()).is_none()
            {
                return Err(Error::not_found(format!("no collection {:?}", collection.name())));
            }
            let id: Option<CollectionId> = collection.as_ref().map(super::Collection::id);
            db.inner
                .shared
                .swap_manifest(|manifest| {
                    match id {
                        Some(id) => manifest.aliases.insert(alias.clone(), id),
                        None => manifest.aliases.remove(&alias),
                    };
                    Ok(())
                })
                .await?;
            let mut collections = db.inner.collections.write().expect("no panic while held");
            match collection {
                Some(collection) => collections.insert(alias, collection),
                None => collections.remove(&alias),
            };
            Ok(())
        })
        .await
    }
}

//! A value that may change while the process runs, such as a secret whose file is rewritten. Users read it each time
//! ([`Followed::current`]). The one task that reads the files (`config::FollowedFiles`) replaces it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// A value that may change. It is cheap to clone, and all clones share one value.
pub struct Followed<T>(Arc<Inner<T>>);

struct Inner<T> {
    current: RwLock<Arc<T>>,
    /// Values that are made from it, and made again when it changes.
    derived: RwLock<Vec<Derive<T>>>,
}

/// Makes something from a new value, or says why that is impossible without showing the value.
type Derive<T> = Box<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

impl<T> Followed<T> {
    /// A value that stays the same until somebody replaces it.
    pub fn new(value: T) -> Self {
        let derived = RwLock::default();
        Self(Arc::new(Inner { current: RwLock::new(Arc::new(value)), derived }))
    }

    /// The current value. Keep it for one piece of work, not longer.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value and what is made from it. If something cannot be made from the new value, the old value
    /// stays, and the error says why.
    pub fn replace(&self, value: T) -> Result<(), String> {
        for derive in self.0.derived.read().unwrap_or_else(PoisonError::into_inner).iter() {
            derive(&value)?;
        }
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        Ok(())
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// Something that is made from the value now, and again whenever it changes.
    pub fn map<U: Send + Sync + 'static, E: fmt::Display>(
        &self,
        make: impl Fn(&T) -> Result<U, E> + Send + Sync + 'static,
    ) -> Result<Followed<U>, E> {
        let mut derived = self.0.derived.write().unwrap_or_else(PoisonError::into_inner);
        let made = Followed::new(make(&self.current())?);
        let target = made.clone();
        derived.push(Box::new(move |value| target.replace(make(value).map_err(|error| error.to_string())?)));
        Ok(made)
    }
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current().fmt(f)
    }
}

/// A value that never changes.
impl<T: FromStr> FromStr for Followed<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_from_a_value_changes_with_it() {
        let text: Followed<String> = "1".parse().unwrap();
        let number = text.map(|text| text.parse::<u8>()).unwrap();
        let double = number.map(|number| Ok::<_, String>(number * 2)).unwrap();
        assert_eq!((*number.current(), *double.current()), (1, 2));
        text.replace("2".to_owned()).unwrap();
        assert_eq!((*number.current(), *double.current()), (2, 4));
        // No number: the last one stays.
        assert!(text.replace("x".to_owned()).is_err());
        assert_eq!((text.current().as_str(), *number.current(), *double.current()), ("2", 2, 4));
        let no_number: Followed<String> = "x".parse().unwrap();
        assert!(no_number.map(|text| text.parse::<u8>()).is_err());
    }
}

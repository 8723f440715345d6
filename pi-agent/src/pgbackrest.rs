//! pgbackrest

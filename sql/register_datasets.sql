-- Purpose: gives the three data sets the names that the other scripts use.
-- Reads:   ${interactions}, ${items}, ${users}: Parquet files or folders.
-- Returns: nothing; tables interactions, items, users.
CREATE EXTERNAL TABLE interactions STORED AS PARQUET LOCATION '${interactions}';
CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '${items}';
CREATE EXTERNAL TABLE users STORED AS PARQUET LOCATION '${users}';

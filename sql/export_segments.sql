-- Purpose: writes the segments of a category as Parquet, one folder per item, for tools that read Hive partitions.
--          It needs --allow-copy. COPY is not atomic: what must be all or nothing is `item-affinity segment`.
-- Reads:   items; the solution version ${solution}; ${category}.
-- Returns: the number of rows written below ${output}.
SET item_affinity.solution_version = '${solution}';
COPY (
    SELECT item_id, rank, user_id, score
    FROM item_affinity_segments((SELECT item_id FROM items WHERE category = '${category}'), 100)
    ORDER BY item_id, rank
) TO '${output}' STORED AS PARQUET PARTITIONED BY (item_id);

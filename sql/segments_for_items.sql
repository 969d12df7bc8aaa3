-- Purpose: for each item of a category, the users who will most likely interact with it next.
-- Reads:   items; the solution version ${solution}; ${category}.
-- Returns: item_id, rank, user_id, score: ten users per item, best first.
SET item_affinity.solution_version = '${solution}';
SELECT item_id, rank, user_id, score
FROM item_affinity_segments((SELECT item_id FROM items WHERE category = '${category}'), 10)
ORDER BY item_id, rank;

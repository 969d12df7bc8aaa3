-- Purpose: which items of a category reach the same people, so that one offer can carry both.
-- Reads:   items; the solution version ${solution}; ${category}.
-- Returns: item_id, other_item_id, shared_users, jaccard: pairs of items, most alike first.
SET item_affinity.solution_version = '${solution}';
WITH segments AS (
    SELECT item_id, user_id
    FROM item_affinity_segments((SELECT item_id FROM items WHERE category = '${category}'), 100)
),
sizes AS (SELECT item_id, count(*) AS users FROM segments GROUP BY item_id)
SELECT a.item_id, b.item_id AS other_item_id, count(*) AS shared_users,
       round(count(*) / (min(sa.users) + min(sb.users) - count(*) + 0.0), 3) AS jaccard
FROM segments AS a
JOIN segments AS b ON b.user_id = a.user_id AND a.item_id < b.item_id
JOIN sizes AS sa ON sa.item_id = a.item_id
JOIN sizes AS sb ON sb.item_id = b.item_id
GROUP BY a.item_id, b.item_id
ORDER BY shared_users DESC, a.item_id, b.item_id;

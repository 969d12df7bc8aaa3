-- Purpose: an audience for each group of items: users who look like its buyers, and never had anything of it.
-- Reads:   items, interactions; the solution version ${solution}; ${audience}, the users of a group.
-- Returns: category, place, user_id, items, best_score, best_item_id: in how many segments of the category the user is,
--          and where the user scores best; best first.
SET item_affinity.solution_version = '${solution}';
WITH of_group AS (
    SELECT i.category, s.user_id, count(*) AS items, max(s.score) AS best_score,
           first_value(s.item_id ORDER BY s.score DESC, s.item_id) AS best_item_id
    FROM item_affinity_segments((SELECT item_id FROM items), num_results => 500, seen => 'exclude') AS s
    JOIN items AS i ON i.item_id = s.item_id
    GROUP BY i.category, s.user_id
),
had AS (
    SELECT DISTINCT i.category, e.user_id
    FROM interactions AS e
    JOIN items AS i ON i.item_id = e.item_id
),
placed AS (
    SELECT g.*, row_number() OVER (PARTITION BY g.category ORDER BY g.best_score DESC, g.user_id) AS place
    FROM of_group AS g
    LEFT ANTI JOIN had AS h ON h.category = g.category AND h.user_id = g.user_id
)
SELECT category, place, user_id, items, best_score, best_item_id
FROM placed
WHERE place <= ${audience}
ORDER BY category, place;

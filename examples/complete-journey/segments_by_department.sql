-- Purpose: which households the segments of the most bought products hold, by department and income.
-- Reads:   ${data}/products.parquet, ${data}/demographics.parquet, the item list ${items}, the session's solution version.
-- Returns: department, items, households, the share of them with demographics, the most common income among these.
CREATE EXTERNAL TABLE products STORED AS PARQUET LOCATION '${data}/products.parquet';
CREATE EXTERNAL TABLE demographics STORED AS PARQUET LOCATION '${data}/demographics.parquet';
WITH segments AS (SELECT * FROM item_affinity_segments('${items}', 25)),
joined AS (
    SELECT p.department, s.item_id, s.user_id, d.income
    FROM segments AS s
    JOIN products AS p ON CAST(p.product_id AS VARCHAR) = s.item_id
    LEFT JOIN demographics AS d ON CAST(d.household_id AS VARCHAR) = s.user_id
),
incomes AS (
    SELECT department, income, row_number() OVER (PARTITION BY department ORDER BY count(*) DESC, income) AS place
    FROM joined WHERE income IS NOT NULL GROUP BY department, income
)
SELECT j.department, count(DISTINCT j.item_id) AS items, count(DISTINCT j.user_id) AS households,
       round(100.0 * count(j.income) / count(*), 1) AS percent_with_demographics, min(i.income) AS most_common_income
FROM joined AS j LEFT JOIN incomes AS i ON i.department = j.department AND i.place = 1
GROUP BY j.department
ORDER BY items DESC, j.department
LIMIT 10;

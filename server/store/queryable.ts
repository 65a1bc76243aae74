import type pg from 'pg'

/**
 * Where a statement runs: the pool, or one connection inside a transaction.
 * Functions that take `tx` need the transaction; those that take `db` need none.
 */
export interface Queryable {
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    text: string,
    values?: readonly unknown[],
  ): Promise<pg.QueryResult<Row>>
}

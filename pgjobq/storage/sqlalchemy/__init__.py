"""The parts of SQLAlchemyStorage, which stores jobs in any database that SQLAlchemy supports."""

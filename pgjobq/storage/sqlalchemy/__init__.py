"""Jobs in any database that SQLAlchemy reaches: the parts of SQLAlchemyStorage."""

"""The former place of the tables of SQLAlchemyStorage, kept for migration tools that name it."""

"""Where documents come from: the user's files, and collections every installation can build."""

from retrieval.document import Document
from retrieval.files import read_documents
from retrieval.licences import licence_texts
from retrieval.stdlib import python_docs

__all__ = ["Document", "licence_texts", "python_docs", "read_documents"]

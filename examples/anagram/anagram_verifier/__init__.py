"""The verifier anagram and the task anagrams."""
